"""Reference values of the Q-Former's text branch, from transformers.

Run by hand: `python tests/reference/qformer_text.py` (torch, transformers, safetensors). The file
holds one tiny Q-Former (`weight.*` under Hugging Face's keys, the config in the metadata), its inputs
(`input.*`) and three cases, one for each training objective of BLIP-2's first stage:

- `unimodal`: queries with the image, and text alone, in two passes;
- `bidirectional`: queries and text together, all see all;
- `causal`: queries and text together, queries see queries, text sees queries and earlier text.

Each case has `tap.<case>.*` (every intermediate) and `grad.<case>.*` (of `sum(output * probe)` over
the queries and the tokens that are not padding). Texts are padded at the end; one is all padding. One
padding token is not masked, so that it shows whether its embedding is trained. As in qformer.py,
weights are wide and transformers computes in f64.
"""

import json

import torch
from qformer import HERE, sizes, tap
from safetensors.torch import save_file
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

PAD = 2
LENGTHS = (6, 4, 1, 0)
TOKENS, IMAGE_TOKENS = 6, 7
STD = 0.3


def draw_weights(weights):
    for name, parameter in weights.items():
        is_norm_scale = "norm" in name.lower() and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm_scale else 0.0, std=STD)
        parameter.data = parameter.data.double()


def causal_mask(attention_mask, queries):
    """Additive, `[batch, 1, all, all]`; written as the paper says it, position by position."""
    batch, tokens = attention_mask.shape
    total = queries + tokens
    mask = torch.full((batch, 1, total, total), torch.finfo(torch.float64).min, dtype=torch.float64)
    for row in range(total):
        for column in range(total):
            if column < queries:
                mask[:, :, row, column] = 0
            elif row >= queries and column <= row:
                seen = attention_mask[:, column - queries] == 1
                mask[seen, :, row, column] = 0
    return mask


def export():
    torch.manual_seed(5)
    config = sizes(5, 16, 4, 4, 28, 2, 20, 1e-12)
    text = {"vocab_size": 13, "max_position_embeddings": 8, "pad_token_id": PAD}
    queries, batch = config["num_query_tokens"], len(LENGTHS)
    theirs = {key: value for key, value in config.items() if key != "num_query_tokens"}
    theirs = Blip2QFormerConfig(
        **theirs, **text, use_qformer_text_input=True, attn_implementation="eager"
    )
    qformer = Blip2QFormerModel(theirs).eval()
    embeddings = Blip2TextEmbeddings(theirs).eval()
    query_tokens = torch.nn.Parameter(torch.empty(1, queries, config["hidden_size"]))
    weights = {"query_tokens": query_tokens}
    weights |= {f"embeddings.{name}": p for name, p in embeddings.named_parameters()}
    weights |= {f"qformer.{name}": p for name, p in qformer.named_parameters()}
    draw_weights(weights)

    attention_mask = torch.tensor([[int(i < length) for i in range(TOKENS)] for length in LENGTHS])
    # Not the padding token, and repeated words, whose gradients add up.
    input_ids = torch.randint(PAD + 1, 9, (batch, TOKENS))
    input_ids[attention_mask == 0] = PAD
    input_ids[0, 3] = PAD
    image_embeds = torch.randn(batch, IMAGE_TOKENS, config["encoder_hidden_size"]).double()
    probe = torch.randn(batch, queries + TOKENS, config["hidden_size"]).double()
    probe[:, queries:][attention_mask == 0] = 0
    query_embeds = query_tokens.expand(batch, -1, -1)

    def run(taps, name, **inputs):
        handles = [qformer.dropout.register_forward_hook(tap(taps, f"{name}.embeddings"))]
        for index, layer in enumerate(qformer.encoder.layer):
            handles.append(layer.register_forward_hook(tap(taps, f"{name}.layer.{index}")))
        output = qformer(**inputs).last_hidden_state
        for handle in handles:
            handle.remove()
        return output

    def together(taps, name, mask):
        return run(
            taps,
            name,
            query_embeds=embeddings(input_ids, query_embeds=query_embeds),
            query_length=queries,
            attention_mask=mask,
            encoder_hidden_states=image_embeds,
        )

    def unimodal(taps):
        seen = run(
            taps, "unimodal.queries", query_embeds=query_embeds, encoder_hidden_states=image_embeds
        )
        read = run(
            taps,
            "unimodal.text",
            query_embeds=embeddings(input_ids),
            query_length=0,
            attention_mask=attention_mask,
        )
        return torch.cat([seen, read], dim=1)

    def bidirectional(taps):
        ones = torch.ones(batch, queries, dtype=attention_mask.dtype)
        return together(taps, "bidirectional", torch.cat([ones, attention_mask], dim=1))

    def causal(taps):
        return together(taps, "causal", causal_mask(attention_mask, queries))

    taps, tensors = {}, {f"weight.{name}": parameter for name, parameter in weights.items()}
    tensors |= {
        "input.input_ids": input_ids,
        "input.attention_mask": attention_mask,
        "input.image_embeds": image_embeds,
        "input.probe": probe,
    }
    last = str(config["num_hidden_layers"] - 1)
    outputs = {}
    for case in (unimodal, bidirectional, causal):
        for parameter in weights.values():
            parameter.grad = None
        outputs[case.__name__] = output = case(taps)
        (output * probe).sum().backward()
        for name, parameter in weights.items():
            inner = name.startswith("qformer.encoder.layer.")
            if not inner or name.split(".")[3] in ("0", last):
                tensors[f"grad.{case.__name__}.{name}"] = parameter.grad.clone()
        assert not embeddings.word_embeddings.weight.grad[PAD].any()
    # Queries that see no text are those of the caption path, and only those.
    difference = outputs["causal"] - outputs["unimodal"]
    assert difference[:, :queries].abs().max() < 1e-12 < difference[:, queries:].abs().max()
    assert (outputs["bidirectional"] - outputs["causal"])[:, :queries].abs().max() > 0.1

    tensors |= taps
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    metadata = {"config": json.dumps(config | {"text": text})}
    save_file(tensors, HERE / "text.safetensors", metadata=metadata)


if __name__ == "__main__":
    export()
    with torch.device("meta"):
        default = Blip2QFormerConfig(use_qformer_text_input=True)
        parts = (Blip2QFormerModel(default), Blip2TextEmbeddings(default))
    for part in parts:
        print(type(part).__name__, sum(p.numel() for p in part.parameters()))
