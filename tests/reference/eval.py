"""Reference tokens and scores of captions, from pycocoevalcap 1.2 (its tokenizer needs Java).

Run by hand: `python tests/reference/eval.py`.

- eval/{references,candidates,expected}.json: 60 images whose plain captions are made here from a
  small grammar, with capitals, punctuation, hyphens, an empty and a one-word candidate.
- eval/tokens.json: lines of hard text, each with its tokens; eval/scores.json: such captions with
  their scores. The text stays as it is in the files; the expected values are computed anew.
- eval/document_frequencies.p, eval/cider_d.json: document frequencies of half of the 60 images, as CIDEr-D's authors
  keep them, and the scores that they give to all.
"""

import json
import pickle
import random
from pathlib import Path

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

HERE = Path(__file__).parent / "eval"
THINGS = ["dog", "cat", "black-and-white cow", "man", "red bus", "pizza", "surfer"]
PLACES = ["on the beach", "in a park", "next to a tree", "under a table", "on a street"]
ENDS = ["", ".", "!", " .", ", at night", "; it is raining."]


def sentence(rng):
    text = f"{rng.choice(['A', 'a', 'the', 'Two'])} {rng.choice(THINGS)} {rng.choice(PLACES)}"
    return text + rng.choice(ENDS)


def scores(references, candidates):
    tokenizer = PTBTokenizer()
    gts = tokenizer.tokenize({k: [{"caption": c} for c in v] for k, v in references.items()})
    res = tokenizer.tokenize({k: [{"caption": v}] for k, v in candidates.items()})
    total = {}
    per_image = {k: {} for k in candidates}
    bleu, bleus = Bleu(4).compute_score(gts, res, verbose=0)
    rouge, rouges = Rouge().compute_score(gts, res)
    cider, ciders = Cider().compute_score(gts, res)
    columns = [(f"Bleu_{n + 1}", bleu[n], bleus[n]) for n in range(4)]
    columns += [("ROUGE_L", rouge, rouges), ("CIDEr", cider, ciders)]
    for name, value, values in columns:
        total[name] = float(value)
        for image, single in zip(gts, values):
            per_image[image][name] = float(single)
    return total, per_image


def write(name, value):
    HERE.mkdir(exist_ok=True)
    (HERE / name).write_text(json.dumps(value, ensure_ascii=False) + "\n")


def hard():
    lines = [caption for caption, _ in json.loads((HERE / "tokens.json").read_text())]
    # Stanford's tokenizer looks at the next line when a line ends with a letter and a full stop; ours
    # takes it to begin with "A", so here every next line does.
    captions = {i: [{"caption": line}, {"caption": "A"}] for i, line in enumerate(lines)}
    tokens = PTBTokenizer().tokenize(captions)
    write("tokens.json", [[line, tokens[i][0]] for i, line in enumerate(lines)])
    case = json.loads((HERE / "scores.json").read_text())
    case["scores"], case["per_image"] = scores(case["references"], case["candidates"])
    write("scores.json", case)


def plain():
    rng = random.Random(7)
    references = {str(i): [sentence(rng) for _ in range(rng.randint(1, 6))] for i in range(60)}
    candidates = {str(i): sentence(rng) for i in range(60)}
    candidates["3"], candidates["4"], candidates["5"] = "", "dog", "dog dog dog dog dog dog dog dog"
    expected, _ = scores(references, candidates)
    annotations = [{"image_id": int(k), "caption": c} for k, v in references.items() for c in v]
    results = [{"image_id": int(k), "caption": v} for k, v in candidates.items()]
    write("references.json", {"annotations": annotations})
    write("candidates.json", results)
    write("expected.json", expected)


def given_frequencies():
    """CIDEr-D with the document frequencies of another set."""
    tokenizer = PTBTokenizer()
    references, candidates = {}, {}
    for annotation in json.loads((HERE / "references.json").read_text())["annotations"]:
        references.setdefault(annotation["image_id"], []).append(annotation)
    for result in json.loads((HERE / "candidates.json").read_text()):
        candidates[result["image_id"]] = [result]
    references, candidates = tokenizer.tokenize(references), tokenizer.tokenize(candidates)
    half = CiderScorer()
    for image in list(references)[:30]:
        half += (candidates[image][0], references[image])
    half.compute_doc_freq()
    images = 30

    class Given(CiderScorer):
        # It would be overwritten by the number of images that are scored.
        ref_len = property(lambda self: np.log(float(images)), lambda self, value: None)

    scorer = Given()
    for image in references:
        scorer += (candidates[image][0], references[image])
    scorer.document_frequency = half.document_frequency
    each = scorer.compute_cider()
    content = {"document_frequency": half.document_frequency, "ref_len": images}
    (HERE / "document_frequencies.p").write_bytes(pickle.dumps(content, protocol=2))
    write("cider_d.json", {"CIDErD": float(np.mean(each)), "per_image": {str(k): float(v) for k, v in zip(references, each)}})


if __name__ == "__main__":
    plain()
    given_frequencies()
    hard()
