"""Writes lora/: LoRA adapters of PEFT on the tiny model blip2/plain, and what PEFT computes with them;
`crates/blip2/tests/lora.rs` compares.

Made with torch 2.15, transformers 5.24 and peft 0.21 on a CPU, in f32: `python lora.py`.

- `text`: rank 4 on the language model's q_proj and v_proj.
- `parts`: rsLoRA on all three parts, each with a rank and an alpha of its own (rank_pattern, alpha_pattern), by a
  regular expression.

`b` is drawn, for PEFT's zeros would show nothing. Each folder holds what `save_pretrained` wrote and
`expected.safetensors`: the adapter's output for the captions of blip2.py, loss, and the gradients of a and b.
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration

from blip2 import CAPTIONS, HERE as MODELS, PROMPTS, inputs, tokenizer

HERE = Path(__file__).parent / "lora"

CASES = {
    "text": dict(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
    "parts": dict(
        r=3,
        lora_alpha=6,
        use_rslora=True,
        target_modules=r"vision_model\..*\.qkv|qformer\..*\.(query|value)|language_model\..*\.(k_proj|fc2)",
        rank_pattern={r"vision_model\..*": 2, r"qformer\..*": 5},
        alpha_pattern={r"qformer\..*": 2.5},
    ),
}


def expect(model, images, text_tokenizer):
    prompt = PROMPTS[2]
    rows = [inputs(model.get_base_model(), text_tokenizer, f"{prompt} {caption}\n") for caption in CAPTIONS]
    unscored = len(inputs(model.get_base_model(), text_tokenizer, prompt))
    longest = max(map(len, rows))
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :unscored] = -100
    output = model(pixel_values=images[: len(rows)], input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    tensors = {f"logits.{row}": output.logits[row, : len(rows[row])] for row in (0, 2)}
    tensors["loss"] = output.loss.reshape(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            name = name.removeprefix("base_model.model.").replace(".default", "")
            tensors[f"grad.{name}"] = parameter.grad
    return {key: value.detach().float().contiguous() for key, value in tensors.items()}


def main():
    shutil.rmtree(HERE, ignore_errors=True)
    stored = load_file(MODELS / "plain" / "expected.safetensors")
    images = (stored["images"].float() / 255 - 0.5) / 0.25
    for seed, (name, case) in enumerate(CASES.items()):
        base = Blip2ForConditionalGeneration.from_pretrained(MODELS / "plain", attn_implementation="eager").eval()
        torch.manual_seed(seed)
        model = get_peft_model(base, LoraConfig(**case)).eval()
        for parameter in (p for n, p in model.named_parameters() if ".lora_B" in n):
            parameter.data = 0.1 * torch.randn(parameter.shape)
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = "blip2/plain"
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(expect(model, images, tokenizer()), folder / "expected.safetensors")
        print(name, sum(p.numel() for p in model.parameters() if p.requires_grad), "trainable")


if __name__ == "__main__":
    main()
