"""PyTorch's side of `cargo xtask bench model`: does work that it is told on stdin, and says how long it took.

    python bench.py FOLDER [f32|bf16] [compile]

The protocol is that of crates/blip2-train/examples/bench_worker.rs. The model is transformers'
Blip2ForConditionalGeneration with SDPA wherever it has it; image encoder and language model are frozen, the
image encoder runs without a graph. `bf16` is torch.autocast with the frozen towers kept in bf16; `compile`
wraps image encoder, Q-Former and language model in torch.compile. Needs torch, transformers 5 and pillow.
"""

import contextlib
import resource
import sys
import time
from pathlib import Path

started = time.time()
import torch
from PIL import Image
from transformers import AutoImageProcessor, Blip2ForConditionalGeneration

folder, options = Path(sys.argv[1]), sys.argv[2:]
imported = time.time()
model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
if "bf16" in options:
    model.vision_model.bfloat16()
    model.language_model.bfloat16()
seconds_to_load = time.time() - imported
model.vision_model.requires_grad_(False)
model.language_model.requires_grad_(False)
processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
forwards = dict(vit=model.vision_model, qformer=model.qformer, lm=model.language_model)
if "compile" in options:
    forwards = {name: torch.compile(part, dynamic=False) for name, part in forwards.items()}
decay, no_decay = [], []
for name, parameter in model.named_parameters():
    if parameter.requires_grad:
        (no_decay if parameter.ndim == 1 else decay).append(parameter)
groups = [{"params": decay, "weight_decay": 0.05}, {"params": no_decay, "weight_decay": 0.0}]
optimizer = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.999), eps=1e-8)
queries = model.config.num_query_tokens
side = model.config.vision_config.image_size


def precision():
    return torch.autocast("cpu", torch.bfloat16) if "bf16" in options else contextlib.nullcontext()


def pixels(batch, size=side):
    return torch.randn(batch, 3, size, size)


def encode(images, **settings):
    with torch.no_grad(), precision():
        return forwards["vit"](pixel_values=images, **settings).last_hidden_state


def step(batch, text, embeds=None, images=None):
    ids = torch.full((batch, text), 5)
    ids[:, 0] = 2
    model.train()
    model.vision_model.eval()
    model.language_model.eval()
    start = time.time()
    if embeds is None:
        embeds = encode(images)
    with precision():
        output = forwards["qformer"](
            query_embeds=model.query_tokens.expand(batch, -1, -1), encoder_hidden_states=embeds.float()
        ).last_hidden_state
        prefix = model.language_projection(output)
        text_embeds = model.language_model.get_input_embeddings()(ids)
        inputs = torch.cat([prefix.to(text_embeds.dtype), text_embeds], 1)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long)
        logits = forwards["lm"](inputs_embeds=inputs, attention_mask=mask).logits[:, queries:-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss.item()
    return time.time() - start


def caption(batch, beams, tokens, **_):
    model.eval()
    ids = torch.tensor([[model.config.image_token_index] * queries + [2]] * batch)
    images = pixels(batch)
    start = time.time()
    with torch.no_grad(), precision():
        output = model.generate(
            pixel_values=images, input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams,
            max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        )
    assert output.shape[1] - ids.shape[1] in (0, tokens), output.shape
    return time.time() - start


def preprocess(images):
    start = time.time()
    pictures = [Image.open(path).convert("RGB") for path in sorted(Path(images).iterdir())]
    processor(pictures, return_tensors="pt")
    return time.time() - start


def work(name, values):
    numbers = {key: int(value) for key, value in values.items() if key != "images"}
    if name == "train":
        return step(numbers["batch"], numbers["text"], images=pixels(numbers["batch"]))
    if name == "cached":
        return step(numbers["batch"], numbers["text"], embeds=encode(pixels(numbers["batch"])))
    if name == "vit":
        images = pixels(numbers["batch"], numbers["size"])
        settings = {} if numbers["size"] == side else dict(interpolate_pos_encoding=True)
        start = time.time()
        encode(images, **settings)
        return time.time() - start
    if name == "caption":
        return caption(**numbers)
    if name == "preprocess":
        return preprocess(values["images"])
    if name == "peak":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    raise SystemExit(f"unknown work {name}")


print(seconds_to_load, flush=True)
for line in sys.stdin:
    name, *pairs = line.split()
    print(work(name, dict(pair.split("=") for pair in pairs)), flush=True)
