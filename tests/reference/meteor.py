"""Golden values of METEOR on a small set of data of our own.

`python meteor.py` puts the words, synonyms and paraphrases of tests/reference/meteor/data into a copy of METEOR's
jar, runs pycocoevalcap's METEOR on it, and writes tests/reference/meteor/scores.json. So the tests need neither
METEOR's data nor Java. Stems of all words in the captions come from the jar's own stemmer.

Needs pycocoevalcap 1.2 and Java.
"""

import gzip
import json
import random
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import eval_check
from pycocoevalcap.meteor import meteor

HERE = Path(__file__).parent / "meteor"
IMAGES = 150
RESOURCES = {
    "synonym/english.synsets": "synsets",
    "synonym/english.exceptions": "exceptions",
    "function/english.words": "function_words",
    "nonbreaking/english.prefixes": "prefixes",
}


def small_jar(folder):
    """METEOR's programs with our data."""
    jar = Path(meteor.__file__).parent / meteor.METEOR_JAR
    with zipfile.ZipFile(jar) as source, zipfile.ZipFile(folder / meteor.METEOR_JAR, "w") as target:
        for entry in source.infolist():
            if entry.filename in RESOURCES:
                target.writestr(entry.filename, (HERE / "data" / RESOURCES[entry.filename]).read_bytes())
            elif entry.filename.endswith((".class", "MANIFEST.MF", "english.relations", "/")):
                target.writestr(entry.filename, source.read(entry))
    (folder / "data").mkdir()
    with gzip.open(folder / "data" / "paraphrase-en.gz", "wb") as table:
        table.write((HERE / "data" / "paraphrases").read_bytes())


def captions(rng):
    """Captions of the words that the data know, and hard ones."""
    words = """a the big large huge dog dogs hound puppy man men person runs running ran run jumps jumped over above on
    top of next to beside near sits sitting seated grass lawn field two 2 couple red crimson bus coach , . 's it is in
    front ahead was geese goose quickly fast at once child children kid kids eating eats ate""".split()
    text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 14)))
    if rng.random() < 0.15:
        text += " " + rng.choice(["U.S. flag", "Mr. Smith", "No. 5", "1,000 men", "a well-known man", "the dog's", "don't", "3.5", "", "x ... y"])
    if rng.random() < 0.1:
        words = text.split()
        text = " ".join(words + words[: rng.randint(1, 6)] * 2)
    return text


def dataset(rng):
    references, candidates = eval_check.dataset(rng, IMAGES // 3)
    for index in range(IMAGES // 3 + 1, IMAGES + 1):
        references[str(index)] = [captions(rng) for _ in range(rng.randint(1, 5))]
        base = rng.choice(references[str(index)]).split()
        rng.shuffle(base) if rng.random() < 0.5 else None
        candidates[str(index)] = rng.choice(["", captions(rng), captions(rng), " ".join(base), " ".join(base), rng.choice(references[str(index)])])
    return references, candidates


def run(references, candidates):
    """The score of the set and of each image, by the small jar."""
    with tempfile.TemporaryDirectory() as folder:
        small_jar(Path(folder))
        scorer = meteor.Meteor()
        scorer.meteor_p.kill()
        scorer.meteor_p = subprocess.Popen(
            scorer.meteor_cmd, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        total, each = scorer.compute_score(references, candidates)
    return total, dict(zip(references, each))


if __name__ == "__main__":
    references, candidates = dataset(random.Random(9))
    tokens = eval_check.tokenize(references)
    candidate_tokens = eval_check.tokenize({key: [text] for key, text in candidates.items()})
    total, each = run(tokens, candidate_tokens)
    content = dict(references=references, candidates=candidates, score=total, per_image=each)
    (HERE / "scores.json").write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n")
    print(total, len(set(each.values())))
