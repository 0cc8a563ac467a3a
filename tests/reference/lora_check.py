"""Reads adapters that blip2 trained into PEFT and compares logits with those of blip2's merged model in
transformers, and with PEFT's own merge:

    blip2 convert --from RUN --to ADAPTER --adapter
    blip2 convert --from RUN --to MERGED --merge-lora
    python lora_check.py BASE ADAPTER MERGED

RUN must have trained nothing but adapters (`model.lora.adapters_only`) on the weights of BASE, a folder of
transformers. Prints the largest difference of the logits of eight random prompts behind a random image each, in
f32, and ends with code 1 if it is more than 1e-4, or if the adapter changes nothing.
"""

import sys

import torch
from peft import PeftModel
from transformers import Blip2ForConditionalGeneration


def load(path):
    return Blip2ForConditionalGeneration.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def logits(model, seed):
    # Each folder has its own id for the image.
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    side = config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=generator)
    words = torch.randint(4, 300, (1, 12), generator=generator)
    queries = torch.full((1, config.num_query_tokens), config.image_token_index)
    with torch.no_grad():
        return model(pixel_values=pixels, input_ids=torch.cat([queries, words], 1)).logits


def main():
    base, adapter, merged = sys.argv[1:]
    plain, merged = load(base), load(merged)
    before = [logits(plain, seed) for seed in range(8)]
    ours = [logits(merged, seed) for seed in range(8)]
    adapted = PeftModel.from_pretrained(plain, adapter).eval()
    theirs = [logits(adapted, seed) for seed in range(8)]
    distance = lambda one, other: max((a - b).abs().max().item() for a, b in zip(one, other))
    error, effect = distance(ours, theirs), distance(before, theirs)
    print(f"largest logit {max(x.abs().max().item() for x in theirs):.2f}")
    print(f"adapted by PEFT and merged by blip2 differ by {error:.2e}; adapted and base by {effect:.2e}")
    sys.exit(not (error <= 1e-4 < effect))


if __name__ == "__main__":
    main()
