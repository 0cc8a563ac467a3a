"""The loss curve of the debug twin of caption_coco_opt2.7b in PyTorch: same first weights, same batches,
same AdamW groups and schedule.

    cargo build --release --workspace --tests --examples
    target/release/examples/curve_inputs FOLDER
    python tests/reference/curve.py FOLDER        # torch 2.15, transformers 5.23

writes `curve/losses.json`, which `tests/training` compares. The image encoder, the LayerNorm, the Q-Former
and the projection learn, the language model does not; the groups are those of LAVIS
(`Blip2Base.get_optimizer_params`): one-dimensional parameters and biases do not decay. Learning rates are
computed here, by LAVIS's rule (`LinearWarmupCosineLRScheduler`), and must agree with those of the folder.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import Blip2ForConditionalGeneration

folder = Path(sys.argv[1])
content = json.loads((folder / "texts.json").read_text())
model = Blip2ForConditionalGeneration.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager")
model.vision_model.post_layernorm.eps = content["ln_vision_eps"]
model.train()
for part in model.modules():
    if isinstance(part, torch.nn.Dropout):
        part.p = 0.0
model.language_model.requires_grad_(False)
tokenizer = Tokenizer.from_file(str(folder / "model/tokenizer.json"))
bos, pad = (getattr(model.config.text_config, f"{kind}_token_id") for kind in ("bos", "pad"))
queries = model.config.num_query_tokens

decay, no_decay = [], []
for name, parameter in model.named_parameters():
    if parameter.requires_grad:
        (no_decay if parameter.ndim == 1 or name.endswith(".bias") else decay).append(parameter)
optimizer = torch.optim.AdamW(
    [{"params": decay, "weight_decay": content["weight_decay"]}, {"params": no_decay, "weight_decay": 0.0}],
    betas=content["betas"],
    eps=content["eps"],
)


def loss_of(index):
    """The token mean of a batch and its tokens."""
    images = load_file(folder / f"batches/{index:03}.safetensors")["images"]
    prompt = content["prompt"]
    unscored = 1 + len(tokenizer.encode(prompt, add_special_tokens=False).ids)
    rows = []
    for caption in content["captions"][index]:
        ids = tokenizer.encode(f"{prompt} {caption}\n", add_special_tokens=False).ids
        rows.append(([bos] + ids)[: content["max_txt_len"]])
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    image_embeds = model.vision_model(pixel_values=images).last_hidden_state
    query_output = model.qformer(
        query_embeds=model.query_tokens.expand(len(rows), -1, -1), encoder_hidden_states=image_embeds
    ).last_hidden_state
    prefix = model.language_projection(query_output)
    embeds = torch.cat([prefix, model.language_model.get_input_embeddings()(ids)], 1)
    attention = torch.cat([torch.ones(len(rows), queries, dtype=torch.long), mask], 1)
    logits = model.language_model(inputs_embeds=embeds, attention_mask=attention).logits[:, queries:-1]
    targets = ids.masked_fill(mask == 0, -100)
    targets[:, :unscored] = -100
    targets = targets[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    return loss, int((targets != -100).sum())


EPOCHS, LR, MIN_LR, WARMUP_LR, WARMUP_STEPS = 5, 4e-4, 0.0, 1e-8, 4
batches, accumulation = len(content["captions"]), content["accumulation"]
per_epoch = batches // EPOCHS // accumulation
losses = []
for step in range(batches // accumulation):
    epoch = step // per_epoch
    if epoch == 0:
        lr = min(LR, WARMUP_LR + (LR - WARMUP_LR) * step / WARMUP_STEPS)
    else:
        lr = (LR - MIN_LR) * 0.5 * (1 + math.cos(math.pi * epoch / EPOCHS)) + MIN_LR
    assert abs(lr - content["lr"][step]) < 1e-12, (step, lr, content["lr"][step])
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    weighted, count = 0.0, 0
    for micro in range(accumulation):
        loss, tokens = loss_of(step * accumulation + micro)
        (loss / accumulation).backward()
        weighted, count = weighted + loss.item() * tokens, count + tokens
    optimizer.step()
    losses.append(weighted / count)

target = Path(__file__).parent / "curve/losses.json"
target.parent.mkdir(exist_ok=True)
target.write_text(json.dumps(losses, indent=0) + "\n")
print(len(losses), "steps,", losses[0], "to", losses[-1])
