"""How fast captions are scored, tokenization included, against pycocoevalcap with Java.

    python benchmarks/caption_scores.py [CAPTIONS_TXT] [--images 1000] [--repeat 3]

Each image has five references and one caption. Without a Kaggle `captions.txt` they are made up.
Each round runs both in this process, one after the other, on one core but for Java; the ratio is
how many times as fast `paligemma_lib.metrics` is. Needs `pip install pycocoevalcap` and Java.
"""

import argparse
import csv
import itertools
import statistics
import time
from pathlib import Path

import numpy as np

from paligemma_lib import metrics

REFERENCES = 5


def read(table: Path, count: int) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The first rows of a table: five references for each image, of which one is the caption."""
    references: dict[str, list[str]] = {}
    with open(table, newline="", encoding="utf-8") as file:
        for image, caption in itertools.islice(csv.reader(file), 1, None):
            references.setdefault(image, []).append(caption)
    chosen = dict(itertools.islice(references.items(), count))
    # The caption of the image before, so that it is no reference itself.
    before = [list(chosen)[-1], *list(chosen)[:-1]]
    return chosen, {i: chosen[j][0] for i, j in zip(chosen, before, strict=True)}


def made_up(count: int) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Captions of words as frequent as Zipf has them."""
    rng = np.random.default_rng(0)
    vocabulary = ["a", "dog's", "the", "in", "red-haired", *(f"word{n}" for n in range(5000))]

    def caption() -> str:
        ranks = np.minimum(rng.zipf(1.3, rng.integers(6, 18)) - 1, len(vocabulary) - 1)
        return " ".join(vocabulary[rank] for rank in ranks) + " ."

    images = [f"{number}.jpg" for number in range(count)]
    references = {image: [caption() for _ in range(REFERENCES)] for image in images}
    return references, {image: caption() for image in images}


def by_pycocoevalcap(references: dict[str, list[str]], captions: dict[str, str]) -> list[float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    told = {i: [{"caption": text} for text in group] for i, group in references.items()}
    said = {i: [{"caption": text}] for i, text in captions.items()}
    told, said = PTBTokenizer().tokenize(told), PTBTokenizer().tokenize(said)
    scores = Bleu(4).compute_score(told, said, verbose=0)[0]
    return [*scores, *(scorer.compute_score(told, said)[0] for scorer in (Rouge(), Cider()))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions_txt", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    if args.captions_txt:
        references, captions = read(args.captions_txt, args.images)
    else:
        references, captions = made_up(args.images)
    ratios = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        ours = metrics.score(references, captions).corpus
        middle = time.perf_counter()
        theirs = dict(zip(metrics.NAMES, by_pycocoevalcap(references, captions), strict=True))
        end = time.perf_counter()
        difference = max(abs(ours[name] - theirs[name]) for name in metrics.NAMES)
        ratios.append((end - middle) / (middle - start))
        print(
            f"{len(references)} images: {middle - start:.2f} s, pycocoevalcap with Java "
            f"{end - middle:.2f} s, ratio {ratios[-1]:.1f}; scores differ by {difference:.0e}",
            flush=True,
        )
    print(f"median ratio: {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
