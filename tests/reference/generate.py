"""Writes generate/cases.json: token ids and scores of transformers' `generate(inputs_embeds=...)` for
24 prefixes, and what its sampling warpers keep. `crates/blip2-lm/tests/generate_parity.rs` compares.

The model is opt/pre_norm.safetensors of opt.py. Made with torch 2.15 and transformers 5.23 on a CPU:
`python generate.py`.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import OPTConfig, OPTForCausalLM
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from opt import MODELS, SHARED

HERE = Path(__file__).parent
PAD = 1
PREFIXES = 24
LONGEST = 11

SETTINGS = [
    dict(max_new_tokens=12),
    dict(max_new_tokens=1),
    dict(max_new_tokens=10, min_new_tokens=6),
    dict(max_new_tokens=12, repetition_penalty=1.5),
    dict(max_new_tokens=16, no_repeat_ngram_size=2),
    dict(max_new_tokens=16, min_new_tokens=3, no_repeat_ngram_size=1),
    dict(num_beams=3, max_new_tokens=12),
    dict(num_beams=5, max_new_tokens=12),
    dict(num_beams=5, max_new_tokens=14, min_new_tokens=8, repetition_penalty=1.15, length_penalty=0.0),
    dict(num_beams=5, max_new_tokens=12, early_stopping=True),
    dict(num_beams=3, max_new_tokens=12, early_stopping=True, no_repeat_ngram_size=2),
    dict(num_beams=3, max_new_tokens=16, length_penalty=2.0, num_return_sequences=3),
    dict(num_beams=5, max_new_tokens=9, length_penalty=-1.0, num_return_sequences=5),
    dict(num_beams=3, max_new_tokens=12, min_new_tokens=2, num_return_sequences=2, two_ends=True),
    dict(num_beams=5, max_new_tokens=10, repetition_penalty=0.8, no_repeat_ngram_size=3),
]

WARPS = [
    dict(temperature=0.7),
    dict(top_k=5),
    dict(top_p=0.8),
    dict(temperature=1.3, top_k=12, top_p=0.6),
    dict(temperature=0.5, top_k=100, top_p=0.95),
]


def load_model():
    config = OPTConfig(**SHARED, **MODELS["pre_norm"], dropout=0.0, attn_implementation="eager")
    model = OPTForCausalLM(config).float().eval()
    weights = load_file(HERE / "opt" / "pre_norm.safetensors")
    weights = {key: value for key, value in weights.items() if key.startswith("model.")}
    weights["lm_head.weight"] = weights["model.decoder.embed_tokens.weight"]
    model.load_state_dict(weights)
    model.generation_config.eos_token_id = None
    return model


def run(model, prefixes, ends, setting):
    """One prefix at a time: transformers 5.23 exempts new tokens of padded rows from the penalty."""
    setting = dict(setting)
    ends = ends if setting.pop("two_ends", False) else ends[:1]
    rows = []
    for prefix in prefixes:
        embeds = model.get_input_embeddings()(torch.tensor([prefix]))
        output = model.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=PAD,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            **setting,
        )
        texts = []
        for index, ids in enumerate(output.sequences.tolist()):
            stop = next((i for i, token in enumerate(ids) if token in ends), None)
            if stop is None:
                assert len(ids) == setting["max_new_tokens"], ids
            else:
                ids = ids[: stop + 1]
            if "num_beams" in setting:
                score = output.sequences_scores[index].item()
            else:
                steps = [logits[0].log_softmax(-1) for logits in output.logits]
                score = sum(step[token].item() for step, token in zip(steps, ids))
            texts.append(dict(token_ids=ids, score=score))
        rows.append(texts)
    return ends, rows


def warp(scores, setting):
    scores = scores[None].clone()
    if "temperature" in setting:
        scores = TemperatureLogitsWarper(setting["temperature"])(None, scores)
    if "top_k" in setting:
        scores = TopKLogitsWarper(setting["top_k"])(None, scores)
    if "top_p" in setting:
        scores = TopPLogitsWarper(setting["top_p"])(None, scores)
    return [dict(token=i, score=s) for i, s in enumerate(scores[0].tolist()) if s != float("-inf")]


def main():
    # Tiny products: threads only wait for each other.
    torch.set_num_threads(1)
    model = load_model()
    torch.manual_seed(5)
    lengths = [1 + i % LONGEST for i in range(PREFIXES)]
    prefixes = [torch.randint(3, SHARED["vocab_size"], (n,)).tolist() for n in lengths]

    # The two tokens that greedy search writes most often end texts: else no text would end early.
    _, rows = run(model, prefixes, [], dict(max_new_tokens=12))
    written = [token for texts in rows for token in texts[0]["token_ids"]]
    ends = sorted(set(written), key=lambda token: (-written.count(token), token))[:2]

    cases = []
    for setting in SETTINGS:
        used_ends, rows = run(model, prefixes, ends, setting)
        config = {key: value for key, value in setting.items() if key != "two_ends"}
        cases.append(dict(config={**config, "eos_token_ids": used_ends, "pad_token_id": PAD}, rows=rows))
        lengths = [len(text["token_ids"]) for texts in rows for text in texts]
        print(setting, "lengths", min(lengths), sum(lengths) / len(lengths), max(lengths))

    scores = 3 * torch.randn(30)
    scores[7] = scores[21]
    warps = [dict(config=setting, kept=warp(scores, setting)) for setting in WARPS]
    with open(HERE / "generate" / "cases.json", "w") as file:
        json.dump(dict(prefixes=prefixes, cases=cases, warp_scores=scores.tolist(), warps=warps), file)
        file.write("\n")


if __name__ == "__main__":
    main()
