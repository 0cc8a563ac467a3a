"""Writes blip2/: tiny random BLIP-2 models as transformers saves them, the same weights under the names of
LAVIS and mmpretrain, towers alone, and what transformers computes with each.
`crates/blip2/tests/{parity,import}.rs` compare.

Made with torch 2.15 and transformers 5.23 on a CPU: `python blip2.py`.

The models differ in every dimension, in precision, in files (one, shards, a pickle), and in the processor's
files. Weights are drawn wide, so that a wrong wire shows. `expected.safetensors` holds outputs, loss and
gradients in f32; `expected.json` token ids of each image and prompt, alone, for 1, 3 and 5 beams.
"""

import json
import random
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    CLIPVisionConfig,
    CLIPVisionModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

HERE = Path(__file__).parent / "blip2"
ROWS = 320
IMAGES = 10
PROMPTS = ["", "a dog", "a photo of", "two red birds on"]
CAPTIONS = ["a dog on the grass", "two red birds", "a small cat sits under a blue chair", "a man", "trees"]
BEAMS = [1, 3, 5]
NEW_TOKENS = 10
# The prompt counts for both: `Blip2ForConditionalGeneration.generate` hands its ids on.
PENALTIES = dict(repetition_penalty=1.5, no_repeat_ngram_size=2, min_new_tokens=4)

MODELS = {
    # One file in f32, transformers 5's processor file.
    "plain": dict(
        vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=7),
        qformer=dict(hidden_size=16, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4, cross_attention_frequency=2),
        text=dict(hidden_size=20, ffn_dim=44, num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=70),
        queries=4,
        dtype=torch.float32,
    ),
    # Shards in f32, the first processor file (a number as size), no token for the image.
    "sharded": dict(
        vision=dict(hidden_size=30, intermediate_size=28, num_hidden_layers=3, num_attention_heads=3, image_size=30, patch_size=5, layer_norm_eps=1e-5),
        qformer=dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3, cross_attention_frequency=1, layer_norm_eps=1e-6),
        text=dict(hidden_size=16, ffn_dim=24, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=90, activation_function="gelu"),
        queries=7,
        dtype=torch.float32,
    ),
    # bf16, a decoder that norms after, no bias on query, key and value, the heads of stage 1 beside it.
    "bfloat16": dict(
        vision=dict(hidden_size=16, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=24, patch_size=8, qkv_bias=False),
        qformer=dict(hidden_size=20, intermediate_size=32, num_hidden_layers=4, num_attention_heads=5, cross_attention_frequency=3),
        text=dict(hidden_size=24, ffn_dim=40, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=64, do_layer_norm_before=False),
        queries=5,
        dtype=torch.bfloat16,
    ),
    # f16 in a pickle, CLIP's activation, no biases in the decoder, the processor file between.
    "pickle": dict(
        vision=dict(hidden_size=20, intermediate_size=24, num_hidden_layers=4, num_attention_heads=5, image_size=32, patch_size=16, hidden_act="quick_gelu"),
        qformer=dict(hidden_size=12, intermediate_size=48, num_hidden_layers=5, num_attention_heads=2, cross_attention_frequency=4),
        text=dict(hidden_size=28, ffn_dim=36, num_hidden_layers=2, num_attention_heads=7, max_position_embeddings=80, enable_bias=False),
        queries=3,
        dtype=torch.float16,
    ),
}


def tokenizer():
    texts = CAPTIONS + PROMPTS + ["a photo of a green tree", "the sky is blue"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=310,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="</s>"
    )


def draw(model, seed):
    """Wide weights: signals neither die nor explode, and every one of them matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.data = centre + 0.2 * noise
        elif "embed" in name or "query_tokens" in name:
            parameter.data = 0.7 * noise
        else:
            parameter.data = noise * (1.4 / parameter[0].numel() ** 0.5)


def build(case, seed):
    config = Blip2Config(
        vision_config=case["vision"],
        qformer_config=dict(case["qformer"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, vocab_size=40),
        text_config=dict(case["text"], model_type="opt", vocab_size=ROWS, word_embed_proj_dim=case["text"]["hidden_size"], dropout=0.0),
        num_query_tokens=case["queries"],
        image_token_index=ROWS - 1,
    )
    config._attn_implementation = "eager"
    model = Blip2ForConditionalGeneration(config)
    draw(model, seed)
    model.language_model.tie_weights()
    # What is stored is what is compared.
    return model.to(case["dtype"]).float().eval()


def images(side, seed):
    rng = random.Random(seed)
    pixels = torch.tensor([rng.randrange(256) for _ in range(IMAGES * 3 * side * side)], dtype=torch.uint8)
    return pixels.reshape(IMAGES, 3, side, side)


def inputs(model, text_tokenizer, text):
    queries = [model.config.image_token_index] * model.config.num_query_tokens
    return queries + text_tokenizer(text).input_ids


def write_ids(model, pixels, text_tokenizer, beams, **other):
    """New token ids and score of every image and prompt, each alone."""
    rows = []
    for image in range(IMAGES):
        for prompt in PROMPTS:
            ids = torch.tensor([inputs(model, text_tokenizer, prompt)])
            output = model.generate(
                pixel_values=pixels[image : image + 1],
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                num_beams=beams,
                do_sample=False,
                **other,
            )
            new = output[0].tolist()[ids.shape[1] :]
            eos = model.config.text_config.eos_token_id
            if eos in new:
                new = new[: new.index(eos) + 1]
            rows.append(new)
    return rows


def expect(model, pixels, text_tokenizer):
    """Outputs, loss and gradients of a batch of captions after a prompt."""
    prompt = PROMPTS[2]
    batch = pixels[: len(CAPTIONS)]
    rows = [inputs(model, text_tokenizer, f"{prompt} {caption}\n") for caption in CAPTIONS]
    unscored = len(inputs(model, text_tokenizer, prompt))
    longest = max(map(len, rows))
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :unscored] = -100
    model.zero_grad()
    taps = {}
    hooks = [
        model.qformer.register_forward_hook(lambda _m, _i, out: taps.update(qformer=out.last_hidden_state)),
        model.language_projection.register_forward_hook(lambda _m, _i, out: taps.update(projected=out)),
        model.vision_model.register_forward_hook(lambda _m, _i, out: taps.update(vision=out.last_hidden_state)),
    ]
    output = model(pixel_values=batch, input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    for hook in hooks:
        hook.remove()
    last = model.config.qformer_config.num_hidden_layers - 1
    wanted = ("query_tokens", "language_projection", "qformer.encoder.layer.0.", f"qformer.encoder.layer.{last}.")
    tensors = {f"grad.{k}": p.grad for k, p in model.named_parameters() if k.startswith(wanted)}
    # Logits of two rows are enough, at what is no padding.
    tensors["logits.0"], tensors["logits.2"] = (output.logits[row, : len(rows[row])] for row in (0, 2))
    tensors["loss"] = output.loss.reshape(1)
    tensors.update(taps)
    return {key: value.detach().float().contiguous() for key, value in tensors.items()}


def write_processor(folder, side, form, queries):
    image = dict(
        image_processor_type="BlipImageProcessor", do_resize=True, do_rescale=True, do_normalize=True, resample=3,
        rescale_factor=1 / 255, image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711], size=dict(height=side, width=side),
    )
    files = {
        "new": {"processor_config.json": dict(processor_class="Blip2Processor", num_query_tokens=queries, image_processor=image)},
        "old": {"preprocessor_config.json": dict(image, size=side)},
        "between": {
            "preprocessor_config.json": image,
            "processor_config.json": dict(processor_class="Blip2Processor", num_query_tokens=queries),
        },
    }[form]
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=1) + "\n")


def frequent(rows):
    """The token that is written most often ends texts: else none would end early."""
    written = [token for row in rows for token in row[1:]]
    return max(sorted(set(written)), key=written.count)


def write_model(name, case, seed, text_tokenizer):
    folder = HERE / name
    folder.mkdir(parents=True)
    model = build(case, seed)
    raw = images(case["vision"]["image_size"], seed)
    pixels = (raw.float() / 255 - 0.5) / 0.25
    for config in (model.config.text_config, model.language_model.generation_config):
        config.eos_token_id = None
    eos = frequent(write_ids(model, pixels, text_tokenizer, 1))
    for config in (model.config.text_config, model.language_model.generation_config, model.generation_config):
        config.eos_token_id = eos
    ids = {str(beams): write_ids(model, pixels, text_tokenizer, beams) for beams in BEAMS}
    penalised = {str(beams): write_ids(model, pixels, text_tokenizer, beams, **PENALTIES) for beams in (1, 3)}
    lengths = [len(row) for row in ids["5"]]
    print(name, "eos", eos, "lengths", min(lengths), sum(lengths) / len(lengths), max(lengths), "distinct", len({tuple(r) for r in ids["5"]}))
    expected = expect(model, pixels, text_tokenizer)
    expected["images"] = raw
    save_file(expected, folder / "expected.safetensors")
    content = dict(prompts=PROMPTS, captions=CAPTIONS, prompt=PROMPTS[2], max_new_tokens=NEW_TOKENS, token_ids=ids, penalties=PENALTIES, penalised=penalised)
    (folder / "expected.json").write_text(json.dumps(content) + "\n")

    stored = model.to(case["dtype"])
    if name == "pickle":
        state = stored.state_dict()
        stored.config.dtype = case["dtype"]
        stored.config.save_pretrained(folder)
        torch.save(state, folder / "pytorch_model.bin")
    elif name == "sharded":
        stored.save_pretrained(folder, max_shard_size="120KB")
    else:
        stored.save_pretrained(folder)
    if name == "bfloat16":
        add_stage_one(folder, stored)
    if name == "sharded":
        config = json.loads((folder / "config.json").read_text())
        del config["image_token_index"]
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    form = dict(plain="new", sharded="old", bfloat16="new", pickle="between")[name]
    write_processor(folder, case["vision"]["image_size"], form, case["queries"])
    text_tokenizer.save_pretrained(folder)
    return model.float()


def add_stage_one(folder, model):
    """What a checkpoint that went through stage 1 may hold besides."""
    width = model.config.qformer_config.hidden_size
    extra = {
        "embeddings.word_embeddings.weight": (40, width),
        "embeddings.position_embeddings.weight": (12, width),
        "qformer.encoder.layer.0.intermediate.dense.weight": (8, width),
        "qformer.encoder.layer.0.output.LayerNorm.weight": (width,),
        "vision_projection.weight": (8, width),
        "text_projection.bias": (8,),
        "itm_head.weight": (2, width),
    }
    state = {key: value.contiguous() for key, value in model.state_dict().items() if key != "language_model.lm_head.weight"}
    state.update({key: torch.zeros(shape, dtype=torch.bfloat16) for key, shape in extra.items()})
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def lavis_name(key):
    for old, new in [
        ("vision_model.post_layernorm.", "ln_vision."),
        ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
        ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
        ("vision_model.embeddings.patch_embedding.", "visual_encoder.patch_embed.proj."),
        ("vision_model.encoder.layers.", "visual_encoder.blocks."),
        ("qformer.layernorm.", "Qformer.bert.embeddings.LayerNorm."),
        ("qformer.encoder.", "Qformer.bert.encoder."),
        ("language_projection.", "opt_proj."),
        ("language_model.", "opt_model."),
        (".attention.attention.", ".attention.self."),
        (".crossattention.attention.", ".crossattention.self."),
    ]:
        key = key.replace(old, new)
    if key.startswith("visual_encoder.blocks."):
        key = key.replace(".layer_norm", ".norm").replace(".self_attn.projection.", ".attn.proj.").replace(".self_attn.", ".attn.")
    return key


def mmpretrain_name(key):
    for old, new in [
        ("ln_vision.", "ln_vision_backbone."),
        ("visual_encoder.patch_embed.proj.", "vision_backbone.patch_embed.projection."),
        ("visual_encoder.blocks.", "vision_backbone.layers."),
        ("visual_encoder.", "vision_backbone."),
        (".norm1.", ".ln1."),
        (".norm2.", ".ln2."),
        (".mlp.fc1.", ".ffn.layers.0.0."),
        (".mlp.fc2.", ".ffn.layers.1."),
        ("Qformer.bert.", "multimodal_backbone.bert."),
        ("opt_proj.", "vision_neck.fc."),
    ]:
        key = key.replace(old, new)
    return key


def lavis_state(model):
    state = OrderedDict()
    for key, value in model.state_dict().items():
        name, value = lavis_name(key), value.clone()
        if name.endswith(".attn.qkv.bias"):
            # EVA has no bias on the keys. It does nothing, so outputs stay the same.
            query, _, values = value.chunk(3)
            prefix = name.removesuffix("qkv.bias")
            state[prefix + "q_bias"], state[prefix + "v_bias"] = query.clone(), values.clone()
        else:
            state[name] = value
    return state


def write_foreign(model):
    """The model "plain" in the files of LAVIS and mmpretrain."""
    state = lavis_state(model)
    state["opt_model.lm_head.weight"] = state["opt_model.model.decoder.embed_tokens.weight"]
    width = model.config.qformer_config.hidden_size
    stage_one = {
        "Qformer.bert.embeddings.word_embeddings.weight": torch.zeros(40, width),
        "Qformer.bert.embeddings.position_ids": torch.arange(12)[None],
        "Qformer.bert.encoder.layer.1.intermediate.dense.bias": torch.zeros(8),
        "Qformer.cls.predictions.bias": torch.zeros(40),
        "vision_proj.weight": torch.zeros(8, width),
        "temp": torch.tensor(0.07),
    }
    torch.save({"model": OrderedDict({**state, **stage_one})}, HERE / "lavis_full.pth")
    frozen = ("visual_encoder.", "opt_model.")
    trained = OrderedDict((key, value) for key, value in state.items() if not key.startswith(frozen))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    settings = {"model": {"arch": "caption_coco_opt2.7b", "image_size": 28}, "run": {"max_len": 30}}
    torch.save(
        {"model": trained, "optimizer": optimizer.state_dict(), "config": settings, "scaler": None, "epoch": 4},
        HERE / "lavis_trained.pth",
    )
    without_lm = OrderedDict((mmpretrain_name(key), value) for key, value in state.items() if not key.startswith("opt_model."))
    without_lm["data_preprocessor.mean"] = torch.zeros(3, 1, 1)
    torch.save({"meta": {"epoch": 10, "iter": 7}, "state_dict": without_lm}, HERE / "mmpretrain.pth")


def write_eva():
    """The image encoder of `lavis_full.pth` as EVA's own file has it: no prefix, and with what LAVIS leaves out
    of it, a further block and the classifier."""
    whole = torch.load(HERE / "lavis_full.pth", weights_only=True)["model"]
    prefix = "visual_encoder."
    eva = OrderedDict((key.removeprefix(prefix), value.clone()) for key, value in whole.items() if key.startswith(prefix))
    blocks = 1 + max(int(key.split(".")[1]) for key in eva if key.startswith("blocks."))
    for key in [key for key in eva if key.startswith("blocks.0.")]:
        eva[key.replace("blocks.0.", f"blocks.{blocks}.")] = torch.zeros_like(eva[key])
    width = eva["cls_token"].shape[-1]
    for name, shape in [("norm.weight", [width]), ("norm.bias", [width]), ("head.weight", [10, width]), ("head.bias", [10])]:
        eva[name] = torch.zeros(shape)
    torch.save(eva, HERE / "eva.pth")


def write_towers():
    """Image encoders and a language model alone, with an output of each."""
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=14,
        hidden_act="quick_gelu", attn_implementation="eager",
    )
    clip = CLIPVisionModel(config).float().eval()
    draw(clip, 5)
    folder = HERE / "clip"
    clip.save_pretrained(folder)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        hidden = clip(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
    save_file(dict(images=pixels, hidden=hidden.contiguous()), folder / "expected.safetensors")
    openai = OrderedDict()
    state = {key if key.startswith("vision_model.") else "vision_model." + key: value for key, value in clip.state_dict().items()}
    for key, value in state.items():
        key = key.removeprefix("vision_model.")
        for old, new in [
            ("embeddings.class_embedding", "class_embedding"),
            ("embeddings.patch_embedding.", "conv1."),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("pre_layrnorm.", "ln_pre."),
            ("post_layernorm.", "ln_post."),
            ("encoder.layers.", "transformer.resblocks."),
            (".layer_norm1.", ".ln_1."),
            (".layer_norm2.", ".ln_2."),
            (".mlp.fc1.", ".mlp.c_fc."),
            (".mlp.fc2.", ".mlp.c_proj."),
            (".self_attn.out_proj.", ".attn.out_proj."),
        ]:
            key = key.replace(old, new)
        openai[key] = value.clone()
    for layer in range(3):
        for kind in ("weight", "bias"):
            parts = [openai.pop(f"transformer.resblocks.{layer}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            openai[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    torch.save(openai, HERE / "openai_clip.pth")

    opt = OPTForCausalLM(
        OPTConfig(
            vocab_size=40, hidden_size=24, ffn_dim=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=20,
            word_embed_proj_dim=16, do_layer_norm_before=False, dropout=0.0, attn_implementation="eager",
        )
    ).float().eval()
    draw(opt, 6)
    opt.tie_weights()
    folder = HERE / "opt"
    opt.save_pretrained(folder)
    ids = torch.randint(3, 40, (2, 7))
    with torch.no_grad():
        logits = opt(input_ids=ids).logits
    save_file(dict(ids=ids, logits=logits.contiguous()), folder / "expected.safetensors")


def main():
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    text_tokenizer = tokenizer()
    built = {name: write_model(name, case, 10 + i, text_tokenizer) for i, (name, case) in enumerate(MODELS.items())}
    write_foreign(built["plain"])
    write_towers()
    write_eva()


if __name__ == "__main__":
    main()
