"""Reference values of stage 1: LAVIS's own `Blip2Qformer`, and transformers' `Blip2ForImageTextRetrieval`.

Run by hand, each part with the transformers that it wants (torch and safetensors for both):

    python stage1.py lavis FOLDER pretrain         # transformers 4.33; FOLDER: `salesforce-lavis` 1.0.2 of PyPI
    python stage1.py lavis FOLDER retrieval        # the same; FOLDER: LAVIS's repository, which has `image_id`
    python stage1.py bert FOLDER                   # transformers 4.33; either FOLDER
    python stage1.py hugging_face                  # transformers 5

FOLDER holds the package `lavis`, whose files are run as they are; packages that they import and do not use
here are left empty. `stage1/lavis.pth` is a tiny model as LAVIS saves it, without image encoder;
`stage1/lavis_*.safetensors` hold image embeddings, the three losses and all gradients, with hard negatives that
are given; f64 inside, f32 in the files. `stage1/hugging_face/` is a tiny model as transformers saves it, with the scores that
it gives each image and text. `stage1/bert/` is a tiny BERT as transformers 4 saves it, and what LAVIS's Q-Former,
initialised from it, makes of texts.
"""

import importlib
import json
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent / "stage1"
WORDS = "a dog cat red blue bird runs sleeps on under the grass ##es , two".split()
TEXTS = ["a red dog runs on the grass", "two birds", "a blue cat sleeps , under the dog", "a bird", "the red grasses"]
IMAGE_IDS = [3, 1, 3, 2, 1]
NEGATIVES = {"images": [1, 2, 0, 4, 3], "texts": [3, 0, 1, 2, 2]}
# Of the retrieval case, where texts of the same image are no negatives.
RETRIEVAL_NEGATIVES = {"images": [1, 2, 3, 4, 0], "texts": [3, 0, 1, 2, 2]}
QUERIES, WIDTH, IMAGE_TOKENS, EMBED = 4, 20, 6, 12
MAX_TXT_LEN = 8


def vocabulary():
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + WORDS


def draw(parameters, std):
    for name, parameter in parameters:
        norm = "norm" in name.lower() and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if norm else 0.0, std=std)


def modules(folder):
    """LAVIS's `blip2_qformer` and `Qformer`, without the packages that these do not need here."""
    import transformers  # noqa: F401  before its optional packages become empty

    sys.path.insert(0, folder)
    for name in ["timm", "timm.models", "timm.models.layers", "timm.models.registry", "timm.models.hub", "fairscale",
                 "fairscale.nn", "fairscale.nn.checkpoint", "fairscale.nn.checkpoint.checkpoint_activations", "iopath",
                 "iopath.common", "iopath.common.download", "iopath.common.file_io", "omegaconf", "pandas",
                 "torchvision", "torchvision.datasets", "torchvision.datasets.utils"]:
        sys.modules.setdefault(name, MagicMock())
    for name in ["lavis", "lavis.common", "lavis.models", "lavis.models.blip2_models", "lavis.models.blip_models"]:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder, *name.split(".")))]
        sys.modules[name] = package
    base = importlib.import_module("lavis.models.base_model")
    sys.modules["lavis.models"].BaseModel = base.BaseModel
    return (
        importlib.import_module("lavis.models.blip2_models.blip2_qformer"),
        importlib.import_module("lavis.models.blip2_models.Qformer"),
    )


def bert(folder):
    from transformers import BertConfig, BertForPreTraining

    _, qformer = modules(folder)
    torch.manual_seed(13)
    words = len(vocabulary())
    sizes = dict(
        vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=28, max_position_embeddings=10,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    theirs = BertForPreTraining(BertConfig(**sizes)).eval()
    draw(theirs.named_parameters(), 0.2)
    to = HERE / "bert"
    theirs.save_pretrained(to, safe_serialization=True)
    config = qformer.BertConfig.from_pretrained(to)
    config.encoder_width, config.add_cross_attention, config.cross_attention_freq = WIDTH, True, 2
    config.query_length = QUERIES
    model = qformer.BertLMHeadModel.from_pretrained(to, config=config).eval()
    model.resize_token_embeddings(words + 1)
    ids = torch.randint(5, words, (3, 7))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        hidden = model.bert(ids, attention_mask=mask).last_hidden_state
        # Of the words that BERT has; the new one's are drawn.
        logits = model.cls(hidden)[:, :, :words]
        losses = torch.nn.functional.log_softmax(logits, -1)
    tensors = {"input.ids": ids.float(), "output.hidden": hidden, "output.log_probabilities": losses}
    save_file({name: value.contiguous() for name, value in tensors.items()}, to / "expected.safetensors")


def lavis(folder, case):
    from transformers import BertTokenizer

    module, qformer = modules(folder)
    HERE.mkdir(exist_ok=True)
    (HERE / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    torch.manual_seed(11)
    model = module.Blip2Qformer.__new__(module.Blip2Qformer)
    torch.nn.Module.__init__(model)
    model.tokenizer = BertTokenizer(str(HERE / "vocab.txt"))
    model.tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    model.visual_encoder = torch.nn.Identity()
    # Theirs is the same, but computes in f32 whatever it is given.
    model.ln_vision = torch.nn.LayerNorm(WIDTH)
    config = qformer.BertConfig(
        vocab_size=len(model.tokenizer), hidden_size=64, num_hidden_layers=3, num_attention_heads=1, intermediate_size=36,
        max_position_embeddings=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    config.encoder_width, config.add_cross_attention, config.cross_attention_freq = WIDTH, True, 2
    config.query_length = QUERIES
    model.Qformer = qformer.BertLMHeadModel(config)
    model.query_tokens = torch.nn.Parameter(torch.zeros(1, QUERIES, 64))
    model.vision_proj = torch.nn.Linear(64, EMBED)
    model.text_proj = torch.nn.Linear(64, EMBED)
    model.itm_head = torch.nn.Linear(64, 2)
    draw(model.named_parameters(), 0.2)
    model.temp = torch.nn.Parameter(torch.tensor(0.11))
    model.max_txt_len = MAX_TXT_LEN
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if case == "pretrain":
        torch.save({"model": state}, HERE / "lavis.pth")
    model.double().eval()

    negatives = NEGATIVES if case == "pretrain" else RETRIEVAL_NEGATIVES
    chosen = iter(negatives["images"] + negatives["texts"])
    torch.multinomial = lambda weights, count: torch.tensor([next(chosen)])
    module.dist.get_rank = lambda: 0
    torch.distributed.get_world_size = lambda: 1
    image_embeds = torch.randn(len(TEXTS), IMAGE_TOKENS, WIDTH)
    samples = {"image": image_embeds.double(), "text_input": TEXTS}
    if case == "retrieval":
        samples["image_id"] = torch.tensor(IMAGE_IDS)
    output = model(samples)
    tensors = {"input.image_embeds": image_embeds}
    for name in ["loss", "loss_itc", "loss_itm", "loss_lm"]:
        tensors[f"output.{name}"] = output[name].detach().reshape(1).float()
    output.loss.backward()
    for name, parameter in model.named_parameters():
        # The two cases differ in the contrast and the pairs alone.
        if parameter.grad is not None and (case == "pretrain" or not name.startswith("Qformer")):
            tensors[f"grad.{name}"] = parameter.grad.reshape(parameter.grad.shape or (1,)).float().contiguous()
    texts = {"texts": TEXTS, "image_ids": IMAGE_IDS, "negatives": negatives}
    save_file(tensors, HERE / f"lavis_{case}.safetensors", metadata={"config": json.dumps(texts)})
    print({name: float(tensors[f"output.{name}"]) for name in ["loss_itc", "loss_itm", "loss_lm"]})


def hugging_face():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, PreTrainedTokenizerFast

    folder = HERE / "hugging_face"
    words = vocabulary() + ["[DEC]"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        mask_token="[MASK]", bos_token="[DEC]",
    )
    torch.manual_seed(12)
    config = Blip2Config(
        vision_config=dict(hidden_size=WIDTH, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=7),
        qformer_config=dict(
            hidden_size=16, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4, cross_attention_frequency=2,
            use_qformer_text_input=True, vocab_size=len(words), max_position_embeddings=12, pad_token_id=0,
        ),
        num_query_tokens=QUERIES, image_text_hidden_size=EMBED,
    )
    model = Blip2ForImageTextRetrieval(config).eval()
    draw(model.named_parameters(), 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = torch.randn(3, 3, 28, 28)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    tensors = {"input.pixel_values": pixels}
    with torch.no_grad():
        def scores(matching):
            rows = []
            for image in pixels:
                images = image.expand(len(TEXTS), -1, -1, -1)
                rows.append(model(images, tokens.input_ids, tokens.attention_mask, use_image_text_matching_head=matching))
            return rows
        tensors["output.itm"] = torch.stack([row.logits_per_image for row in scores(True)])
        itc = scores(False)
        # Each image with all texts; images are the same in all rows.
        tensors["output.itc"] = torch.stack([row.logits_per_image[0] for row in itc])
        tensors["output.text_embeds"] = itc[0].text_embeds
        tensors["output.image_embeds"] = torch.stack([row.image_embeds[0] for row in itc])
    metadata = {"config": json.dumps({"texts": TEXTS})}
    save_file({name: value.float().contiguous() for name, value in tensors.items()}, folder / "expected.safetensors", metadata=metadata)
    print({name: tuple(value.shape) for name, value in tensors.items()})


if __name__ == "__main__":
    {"lavis": lavis, "bert": bert, "hugging_face": hugging_face}[sys.argv[1]](*sys.argv[2:])
