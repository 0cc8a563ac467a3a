"""Writes eval/{references,candidates,expected}.json: captions of 60 images and their COCO scores.

Run by hand with pycocoevalcap 1.2 (its tokenizer needs Java): `python tests/reference/eval.py`. The
text is made here from a small grammar, with capitals, punctuation, hyphens, an empty and a one-word
candidate.
"""

import json
import random
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

HERE = Path(__file__).parent / "eval"
THINGS = ["dog", "cat", "black-and-white cow", "man", "red bus", "pizza", "surfer"]
PLACES = ["on the beach", "in a park", "next to a tree", "under a table", "on a street"]
ENDS = ["", ".", "!", " .", ", at night", "; it is raining."]


def sentence(rng):
    text = f"{rng.choice(['A', 'a', 'the', 'Two'])} {rng.choice(THINGS)} {rng.choice(PLACES)}"
    return text + rng.choice(ENDS)


def main():
    rng = random.Random(7)
    references = {str(i): [sentence(rng) for _ in range(rng.randint(1, 6))] for i in range(60)}
    candidates = {str(i): sentence(rng) for i in range(60)}
    candidates["3"], candidates["4"], candidates["5"] = "", "dog", "dog dog dog dog dog dog dog dog"
    tokenizer = PTBTokenizer()
    gts = tokenizer.tokenize({k: [{"caption": c} for c in v] for k, v in references.items()})
    res = tokenizer.tokenize({k: [{"caption": v}] for k, v in candidates.items()})
    expected = {}
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    for n, value in enumerate(bleu):
        expected[f"Bleu_{n + 1}"] = value
    expected["ROUGE_L"] = float(Rouge().compute_score(gts, res)[0])
    expected["CIDEr"] = float(Cider().compute_score(gts, res)[0])
    HERE.mkdir(exist_ok=True)
    annotations = [{"image_id": int(k), "caption": c} for k, v in references.items() for c in v]
    results = [{"image_id": int(k), "caption": v} for k, v in candidates.items()]
    for name, value in [
        ("references", {"annotations": annotations}),
        ("candidates", results),
        ("expected", expected),
    ]:
        (HERE / f"{name}.json").write_text(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
