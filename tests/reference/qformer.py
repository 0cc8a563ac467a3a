"""Reference values of the Q-Former and the vision neck, from transformers.

Run by hand: `python tests/reference/qformer.py` (torch, transformers, safetensors). Each file holds
a tiny Q-Former: `weight.*` under Hugging Face's keys, `input.*`, `tap.*` (every intermediate),
`grad.*` (of `sum(neck(output) * input.probe)`), and the config in the metadata. Weights are drawn
wide, so that attention is far from uniform and a wrong weight or epsilon shows. Weights and inputs
are f32 numbers; transformers computes in f64, so that the files have no rounding errors of their own.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Blip2QFormerConfig, Blip2QFormerModel

HERE = Path(__file__).parent / "qformer"


def tap(taps, name):
    def hook(_module, _inputs, output):
        taps[f"tap.{name}"] = output[0] if isinstance(output, tuple) else output

    return hook


def export(file, config, lm_width, image_tokens, batch, std, seed):
    torch.manual_seed(seed)
    theirs = {key: value for key, value in config.items() if key != "num_query_tokens"}
    qformer = Blip2QFormerModel(Blip2QFormerConfig(**theirs, attn_implementation="eager")).eval()
    neck = torch.nn.Linear(config["hidden_size"], lm_width)
    query_tokens = torch.nn.Parameter(
        torch.empty(1, config["num_query_tokens"], config["hidden_size"])
    )
    weights = {"query_tokens": query_tokens}
    weights |= {f"qformer.{name}": p for name, p in qformer.named_parameters()}
    weights |= {f"language_projection.{name}": p for name, p in neck.named_parameters()}
    for name, parameter in weights.items():
        is_norm_scale = "norm" in name.lower() and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm_scale else 0.0, std=std)
        parameter.data = parameter.data.double()

    taps = {}
    qformer.dropout.register_forward_hook(tap(taps, "embeddings"))
    for index, layer in enumerate(qformer.encoder.layer):
        layer.register_forward_hook(tap(taps, f"layer.{index}"))
    image_embeds = torch.randn(batch, image_tokens, config["encoder_hidden_size"]).double()
    image_embeds.requires_grad_(True)
    output = qformer(
        query_embeds=query_tokens.expand(batch, -1, -1), encoder_hidden_states=image_embeds
    ).last_hidden_state
    prefix = neck(output)
    probe = torch.randn(prefix.shape).double()
    (prefix * probe).sum().backward()

    tensors = {"input.image_embeds": image_embeds, "input.probe": probe}
    tensors |= taps | {"tap.neck": prefix, "grad.image_embeds": image_embeds.grad}
    last = str(config["num_hidden_layers"] - 1)
    for name, parameter in weights.items():
        tensors[f"weight.{name}"] = parameter
        inner = name.startswith("qformer.encoder.layer.")
        if not inner or name.split(".")[3] in ("0", last):
            tensors[f"grad.{name}"] = parameter.grad
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    HERE.mkdir(exist_ok=True)
    save_file(tensors, HERE / file, metadata={"config": json.dumps(config)})


def sizes(queries, hidden, layers, heads, inner, frequency, encoder_hidden, eps):
    return {
        "num_query_tokens": queries,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "cross_attention_frequency": frequency,
        "encoder_hidden_size": encoder_hidden,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": eps,
    }


if __name__ == "__main__":
    export(
        "every_other_layer.safetensors",
        sizes(5, 16, 4, 4, 28, 2, 20, 1e-12),
        lm_width=12, image_tokens=7, batch=2, std=0.35, seed=1,
    )
    # A large epsilon, so that it shows whether it is used.
    export(
        "every_layer.safetensors",
        sizes(3, 24, 2, 3, 20, 1, 10, 1e-2),
        lm_width=8, image_tokens=10, batch=3, std=0.3, seed=2,
    )
    with torch.device("meta"):
        model = Blip2QFormerModel(Blip2QFormerConfig())
    print("parameters of the default Q-Former:", sum(p.numel() for p in model.parameters()))
