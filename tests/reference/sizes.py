"""Prints the numbers of parameters that the tests of presets name, from models on the device `meta`.

Made with torch 2.15 and transformers 5.23: `python sizes.py`.
"""

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, OPTConfig, OPTForCausalLM

OPT = {
    "opt-125m": (768, 12, 12, {}),
    "opt-350m": (1024, 24, 16, dict(word_embed_proj_dim=512, do_layer_norm_before=False)),
    "opt-1.3b": (2048, 24, 32, {}),
    "opt-2.7b": (2560, 32, 32, {}),
    "opt-6.7b": (4096, 32, 32, {}),
}


def opt(name):
    width, layers, heads, other = OPT[name]
    return dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=4 * width, **other)


def count(name, make):
    with torch.device("meta"):
        model = make()
    print(name, sum(parameter.numel() for parameter in model.parameters()))


for name in OPT:
    count(name, lambda: OPTForCausalLM(OPTConfig(**opt(name))))
for name, text, side in [
    ("blip2-opt-2.7b", "opt-2.7b", 224),
    ("blip2-opt-6.7b", "opt-6.7b", 224),
    ("caption_coco_opt2.7b", "opt-2.7b", 364),
]:
    config = dict(vision_config=dict(image_size=side), text_config=dict(opt(text), model_type="opt"))
    count(name, lambda: Blip2ForConditionalGeneration(Blip2Config(**config)))
