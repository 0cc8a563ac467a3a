"""Writes a full-size Salesforce/blip2-opt-2.7b with random weights in bf16 (7.5 GB, in shards), and captions
an image with transformers: seconds and peak memory beside those of `blip2 caption` on the same files.

    python full_size.py write FOLDER
    python full_size.py caption FOLDER IMAGE [--beams N] [--tokens N] [--dtype float32]

Needs torch, transformers 5 and pillow. Nothing of it is committed.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Blip2Config, Blip2ForConditionalGeneration

from blip2 import tokenizer, write_processor

SHARD = 5_000_000_000


def write(folder):
    config = Blip2Config(
        text_config=dict(model_type="opt", hidden_size=2560, num_hidden_layers=32, num_attention_heads=32, ffn_dim=10240,
                         word_embed_proj_dim=2560, eos_token_id=50118),
        image_token_index=50265,
    )
    config.dtype = torch.bfloat16
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = Blip2ForConditionalGeneration(config)
    shapes = {key: value.shape for key, value in model.state_dict().items() if key != "language_model.lm_head.weight"}
    shards, size = [[]], 0
    for key, shape in shapes.items():
        if size + 2 * shape.numel() > SHARD:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += 2 * shape.numel()
    generator = torch.Generator().manual_seed(0)
    index = {}
    for number, keys in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {}
        for key in keys:
            value = torch.empty(shapes[key], dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            norm = "norm" in key.lower() and key.endswith("weight")
            tensors[key] = value + 1 if norm else value
            index[key] = name
        save_file(tensors, folder / name, metadata={"format": "pt"})
        print(name, file=sys.stderr)
    content = dict(metadata=dict(total_size=sum(2 * s.numel() for s in shapes.values())), weight_map=index)
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    write_processor(folder, 224, "new", 32)
    tokenizer().save_pretrained(folder)


def caption(folder, image, beams, tokens, dtype):
    from PIL import Image
    from transformers import BlipImageProcessor

    start = time.time()
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=dtype or "auto").eval()
    loaded = time.time()
    loaded_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    side = model.config.vision_config.image_size
    picture = Image.open(image).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.tensor(list(picture.tobytes())).reshape(side, side, 3).permute(2, 0, 1)[None].float() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    text = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([[model.config.image_token_index] * 32 + text("").input_ids])
    with torch.no_grad():
        output = model.generate(
            pixel_values=((pixels - mean) / std).to(model.dtype), input_ids=ids, attention_mask=torch.ones_like(ids),
            num_beams=beams, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(dict(
        load_s=round(loaded - start, 1), caption_s=round(time.time() - loaded, 1), load_peak_gb=round(loaded_peak / 1e6, 2),
        peak_gb=round(peak / 1e6, 2), token_ids=output[0, ids.shape[1] :].tolist(),
    )))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["write", "caption"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("image", nargs="?")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=10)
    parser.add_argument("--dtype")
    arguments = parser.parse_args()
    if arguments.what == "write":
        write(arguments.folder)
    else:
        caption(arguments.folder, arguments.image, arguments.beams, arguments.tokens, arguments.dtype)
