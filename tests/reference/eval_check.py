"""Compares blip2-eval with pycocoevalcap 1.2 on a large set of captions that are hard to tokenize.

`python eval_check.py EXAMPLES [--images N]` makes the set, runs pycocoevalcap and the programs of
crates/blip2-eval/examples on it (EXAMPLES is the folder in which `cargo build --release
-p blip2-eval --examples` left them), and compares every line and every score. It fails if one differs.

Needs pycocoevalcap 1.2 and Java.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

REFERENCES = 5
TOLERANCE = 1e-9

NOUNS = """man woman dog cat train bus sofa kitchen umbrella surfboard giraffe T-shirt hot-dog café naïveté
jack-o'-lantern skier motorcycle pizza street sign clock tower O'Brien Dr. Seuss 日本 пляж straße ΣΟΦΟΣ
piñata e-mail wi-fi x-ray AT&T R&B iPhone U.S. flag U.K. Ph.D. student""".split()
ADJECTIVES = """red blue black-and-white two-year-old old-fashioned 3D 90's 1950s-style half-eaten colourful
grey wooden 4x4 1st non-U.S. so-called ready-to-eat rock'n'roll and/or close-up""".split()
VERBS = """sits stands isn't can't won't doesn't cannot gonna wanna rides is riding holds holding looks looking
's eating they're I'm we've he'd it'll who's don’t couldn't've sleepin' y'all ain't gotta lemme""".split()
PLACES = """on in under near next to at behind with without w/o by @ vs. to from over""".split()
HARD = """$5 $1,000.50 €20 £3 5¢ 50% 3/4 ½ 1½ 1/2 3:30 10:30am 7 p.m. a.m. 12/25/2010 555-1234 (650) 555-1234
#5 #sunset @user No. 5 no. 7 Mr. Mrs. St. Ave. Jr. Inc. etc. e.g. i.e. J. K. Rowling http://example.com/a?b=c
www.example.com example.org foo@bar.com :) :-( ;-) <3 ^_^ 😀 👩‍👩‍👧 🇺🇸 ❤️ … ... .... -- --- – — “quoted” ‘single’ «guillemets»
"double" 'single' ``latex'' (brackets) [square] {curly} <b>bold</b> &amp; &lt; a_b c++ C# 5'10" 6ft. 20°C x² H₂O
© ® ™ × ÷ ± * ** ~ ^ | \\ / // = + ++ _ __ 'tis 'twas '90s 'em o'clock ma'am Ol' d'art é ñ ß İ \u200b \u00ad
photo.jpg index.html 1 1/2 2-1/2 +1 -5 1.5.2 .5 3,5 ?! !!! ?? ; : , . ' " ` - \u00a0 \u3000 １２ ＡＢ""".split(" ")
HARD = [word for piece in HARD for word in piece.split("\n")]
ENDS = ["."] * 8 + ["", "", "", "!", "?", "...", " .", ";", "?!", ".)", '."', " ", ".  "]

# pycocoevalcap tokenizes all captions as one text and looks at the next line to decide about these
# full stops. blip2-eval's captions do not depend on their neighbours: none of the set ends so.
LOOKS_BEHIND = re.compile(r"(^|[^\w])([^\W\d_]|no|nos|art|ca|figs?|op|pp|prop)\.\s*$", re.IGNORECASE)


def independent(text):
    return text + " end" if LOOKS_BEHIND.search(text) else text


def caption(rng):
    kind = rng.random()
    if kind < 0.02:
        return ""
    if kind < 0.04:
        return independent(rng.choice(NOUNS + HARD))
    words = [rng.choice(["a", "A", "The", "two", "An", "the"])]
    for _ in range(rng.randint(1, 4)):
        words += rng.choices(ADJECTIVES, k=rng.randint(0, 2)) + [rng.choice(NOUNS), rng.choice(VERBS)]
        words += [rng.choice(PLACES), rng.choice(["a", "the", "some"])]
        words += rng.choices(HARD, k=rng.choice([0, 0, 1, 2]))
    words.append(rng.choice(NOUNS))
    if rng.random() < 0.1:
        words += words[-3:] * rng.randint(1, 4)
    if rng.random() < 0.05:
        words = [word.upper() for word in words]
    joints = rng.choices([" ", "  ", ", ", "-", "/", ". ", "\n", "", "'s "], [90, 1, 3, 1, 1, 1, 0.5, 1, 1], k=len(words))
    text = "".join(word + joint for word, joint in zip(words, joints)).strip(" ,")
    return independent(text + rng.choice(ENDS))


def dataset(rng, images):
    """References and a candidate for each image; many candidates borrow from a reference."""
    references = {str(index): [caption(rng) for _ in range(REFERENCES)] for index in range(1, images + 1)}
    candidates = {}
    for index, captions in references.items():
        words = rng.choice(captions).split(" ")
        kind = rng.random()
        if kind < 0.3:
            text = " ".join(words[: rng.randint(1, len(words))])
        elif kind < 0.6:
            words[rng.randrange(len(words))] = rng.choice(NOUNS)
            text = " ".join(words)
        elif kind < 0.65:
            text = " ".join(words[:3] * rng.randint(2, 5))
        else:
            text = caption(rng)
        candidates[index] = independent(text)
    return references, candidates


def tokenize(captions):
    return PTBTokenizer().tokenize({key: [{"caption": text} for text in texts] for key, texts in captions.items()})


def meteor_scores(references, candidates):
    """METEOR of the whole set and of each image, and the seconds that loading and scoring took."""
    start = time.time()
    total, each = meteor.Meteor().compute_score(references, candidates)
    return total, dict(zip(references, each)), time.time() - start


def scores(references, candidates):
    """The tokens, the scores of the whole set and of each image, and the seconds it took."""
    start = time.time()
    references = tokenize(references)
    candidates = tokenize({key: [text] for key, text in candidates.items()})
    total, each = {}, {key: {} for key in references}
    for scorer, names in [(Bleu(4), [f"Bleu_{n}" for n in range(1, 5)]), (Rouge(), ["ROUGE_L"]), (Cider(), ["CIDEr"])]:
        values, lists = scorer.compute_score(references, candidates)
        if len(names) == 1:
            values, lists = [values], [lists]
        for name, value, per_image in zip(names, values, lists):
            total[name] = float(value)
            for key, image in zip(references, per_image):
                each[key][name] = float(image)
    return references, candidates, total, each, time.time() - start


def coco_files(folder, references, candidates):
    annotations = [{"image_id": int(key), "caption": text} for key, texts in references.items() for text in texts]
    results = [{"image_id": int(key), "caption": text} for key, text in candidates.items()]
    paths = folder / "references.json", folder / "candidates.json"
    for path, content in zip(paths, [{"annotations": annotations}, results]):
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n")
    return paths


def check(examples, images):
    references, candidates = dataset(random.Random(5), images)
    tokens, candidate_tokens, total, each, seconds = scores(references, candidates)
    with tempfile.TemporaryDirectory() as folder:
        paths = coco_files(Path(folder), references, candidates)
        start = time.time()
        output = json.loads(subprocess.check_output([examples / "coco_scores", *paths]))
        ours = time.time() - start
        start = time.time()
        data = Path(meteor.__file__).parent
        with_meteor = json.loads(subprocess.check_output([examples / "coco_scores", *paths, data]))
        meteor_ours = time.time() - start - ours
    meteor_total, meteor_each, meteor_seconds = meteor_scores(tokens, candidate_tokens)
    texts = [text for key in references for text in references[key]] + list(candidates.values())
    expected = [line for key in references for line in tokens[key]] + [candidate_tokens[key][0] for key in candidates]
    lines = "".join(text.replace("\n", " ") + "\n" for text in texts)
    actual = subprocess.check_output([examples / "tokenize_lines"], input=lines.encode()).decode().split("\n")[:-1]
    different = [case for case in zip(texts, expected, actual, strict=True) if case[1] != case[2]]
    for case in different[:20]:
        print("\n".join(map(repr, case)), file=sys.stderr)
    most = max(abs(total[name] - output["scores"][name]) for name in total)
    each_most = max(abs(each[key][name] - output["per_image"][key][name]) for key in each for name in total)
    print(f"{len(texts)} captions, {len(different)} tokenized differently")
    print(f"largest difference of scores: {most:.2e} whole set, {each_most:.2e} one image")
    print(f"pycocoevalcap {seconds:.2f} s, blip2-eval {ours:.3f} s: {seconds / ours:.0f} times")
    meteor_most = abs(meteor_total - with_meteor["scores"]["METEOR"])
    differences = {key: abs(meteor_each[key] - with_meteor["per_image"][key]["METEOR"]) for key in meteor_each}
    meteor_each_most = max(differences.values())
    for key in sorted(differences, key=differences.get)[-20:]:
        if differences[key] > TOLERANCE:
            print(differences[key], candidate_tokens[key], tokens[key], file=sys.stderr)
    print(f"METEOR: largest difference {meteor_most:.2e} whole set, {meteor_each_most:.2e} one image")
    print(f"METEOR with loading: pycocoevalcap {meteor_seconds:.2f} s, blip2-eval {meteor_ours:.2f} s: {meteor_seconds / meteor_ours:.1f} times")
    return not different and max(most, each_most, meteor_most, meteor_each_most) <= TOLERANCE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    sys.exit(not check(arguments.examples.resolve(), arguments.images))
