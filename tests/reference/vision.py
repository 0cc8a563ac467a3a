"""Reference values of the image encoders, from transformers.

Run by hand: `python tests/reference/vision.py` (torch, transformers, safetensors). Each file holds a
tiny encoder: `weight.*` under Hugging Face's keys, `input.*`, `tap.*` (every intermediate),
`grad.*` (of `sum(output * input.probe)`), and the config in the metadata. Weights are drawn wide, so
that attention is far from uniform and a wrong weight or epsilon shows. Weights and inputs are f32
numbers; transformers computes in f64, so that the files have no rounding errors of their own.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Blip2VisionConfig, Blip2VisionModel, CLIPVisionConfig, CLIPVisionModel

HERE = Path(__file__).parent / "vision"


def draw(model, std):
    for name, parameter in model.named_parameters():
        is_norm_scale = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm_scale else 0.0, std=std)


def tap(taps, name):
    def hook(_module, _inputs, output):
        taps[f"tap.{name}"] = output[0] if isinstance(output, tuple) else output

    return hook


def export(file, model, config, std, batch, seed, large=None):
    torch.manual_seed(seed)
    draw(model, std)
    model.double().eval()
    taps = {}
    embeddings, layers = model.embeddings, model.encoder.layers
    embeddings.patch_embedding.register_forward_hook(tap(taps, "patch_embed"))
    embeddings.register_forward_hook(tap(taps, "embeddings"))
    if config["pre_layernorm"]:
        model.pre_layrnorm.register_forward_hook(tap(taps, "pre_layernorm"))
    for index, layer in enumerate(layers):
        layer.register_forward_hook(tap(taps, f"block.{index}"))

    size = config["image_size"]
    channels = config["num_channels"]
    tensors = {"input.images": torch.randn(batch, channels, size, size).double()}
    model(tensors["input.images"])
    taps["tap.patch_embed"] = taps["tap.patch_embed"].flatten(2).transpose(1, 2)
    last = taps[f"tap.block.{len(layers) - 1}"]
    tensors["input.probe"] = torch.randn(last.shape).double()
    (last * tensors["input.probe"]).sum().backward()
    tensors |= taps

    if large:
        taps.clear()
        tensors["input.large_images"] = torch.randn(1, channels, large, large).double()
        model(tensors["input.large_images"], interpolate_pos_encoding=True)
        tensors["tap.large"] = taps[f"tap.block.{len(layers) - 1}"]

    for name, parameter in model.named_parameters():
        # The encoder ends before this norm: the assembled model owns it.
        if name.startswith("post_layernorm"):
            continue
        tensors[f"weight.vision_model.{name}"] = parameter
        inner = name.startswith("encoder.layers.")
        if not inner or name.split(".")[2] in ("0", str(len(layers) - 1)):
            tensors[f"grad.vision_model.{name}"] = parameter.grad
    HERE.mkdir(exist_ok=True)
    save_file(as_f32(tensors), HERE / file, metadata={"config": json.dumps(config)})


def as_f32(tensors):
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def sizes(image, patch, hidden, layers, heads, inner, act, eps, **options):
    config = {
        "image_size": image,
        "patch_size": patch,
        "num_channels": 3,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": act,
        "layer_norm_eps": eps,
    }
    ours = {"qkv_bias": True, "patch_bias": True, "pre_layernorm": False} | options
    return config, config | ours


def eva(file, theirs, ours, **options):
    config = Blip2VisionConfig(**theirs, qkv_bias=ours["qkv_bias"], attn_implementation="eager")
    export(file, Blip2VisionModel(config), ours, **options)


def clip(file, theirs, ours, **options):
    config = CLIPVisionConfig(**theirs, attn_implementation="eager")
    export(file, CLIPVisionModel(config), ours, **options)


def position_embedding():
    """What torch's bicubic interpolation makes of squares, up, down, and to a rectangle."""
    torch.manual_seed(4)
    tensors = {}
    for side, rows, columns in [(16, 26, 26), (4, 7, 5), (5, 3, 2), (1, 3, 3)]:
        pos = torch.randn(1, 1 + side * side, 2).double()
        grid = pos[:, 1:].reshape(1, side, side, 2).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(
            grid, size=(rows, columns), mode="bicubic", align_corners=False
        )
        grid = grid.permute(0, 2, 3, 1).reshape(1, rows * columns, 2)
        case = f"{side}_to_{rows}x{columns}"
        tensors[f"input.{case}"] = pos
        tensors[f"tap.{case}"] = torch.cat([pos[:, :1], grid], dim=1)
    save_file(as_f32(tensors), HERE / "position_embedding.safetensors")


if __name__ == "__main__":
    eva(
        "eva.safetensors",
        *sizes(12, 4, 16, 3, 2, 28, "gelu", 1e-6),
        std=0.4, batch=2, seed=1, large=20,
    )
    # A large epsilon, so that it shows whether it is used.
    eva(
        "eva_no_qkv_bias.safetensors",
        *sizes(10, 5, 12, 2, 4, 20, "gelu", 1e-2, qkv_bias=False),
        std=0.3, batch=1, seed=2,
    )
    clip(
        "clip.safetensors",
        *sizes(12, 3, 24, 2, 3, 20, "quick_gelu", 1e-5, patch_bias=False, pre_layernorm=True),
        std=0.3, batch=3, seed=3,
    )
    position_embedding()
    with torch.device("meta"):
        eva_g = Blip2VisionModel(Blip2VisionConfig())
    count = sum(p.numel() for n, p in eva_g.named_parameters() if "post_layernorm" not in n)
    print("parameters of EVA-ViT-g without post_layernorm:", count)
