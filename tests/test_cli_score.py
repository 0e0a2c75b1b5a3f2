"""`paligemma score`: the scores of the library, for files of any form."""

import json

import pytest

from paligemma_lib.cli import main
from paligemma_lib.metrics import score

REFERENCES = {f"{k}.jpg": [f"a dog number {k} runs .", f"dog {k} is fast ."] for k in range(4)}
CAPTIONS = {f"{k}.jpg": f"a dog number {k} is fast" for k in range(3)}  # of three of the images


@pytest.fixture
def files(tmp_path):
    (tmp_path / "references.json").write_text(json.dumps(REFERENCES))
    rows = [f"{image},{caption}\n" for image, caption in CAPTIONS.items()]
    (tmp_path / "captions.csv").write_text("".join(["image,caption\n", *rows]))
    return tmp_path


def test_scores_are_those_of_the_library(files, capsys):
    names = ["--references", str(files / "references.json")]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 0
    scores = score({image: REFERENCES[image] for image in CAPTIONS}, CAPTIONS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 images"
    for line, (name, value) in zip(lines[1:], scores.corpus.items(), strict=True):
        low, high = scores.intervals()[name]
        assert line.split() == [
            name,
            *f"{100 * value:.1f} {100 * low:.1f} to {100 * high:.1f}".split(),
        ]


def test_programs_get_the_same_as_json(files, capsys):
    names = ["--references", str(files / "references.json"), "--json"]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = score({image: REFERENCES[image] for image in CAPTIONS}, CAPTIONS)
    assert (found["images"], found["scale"]) == (3, 100)
    assert found["warnings"] == list(scores.warnings)
    for name, value in scores.corpus.items():
        low, high = scores.intervals()[name]
        values = {"value": value, "low": low, "high": high}
        assert found["scores"][name] == {key: 100 * each for key, each in values.items()}


def test_names_that_do_not_meet_are_told(files, capsys):
    (files / "captions.csv").write_text("image,caption\nImages/0.jpg,a dog\n")
    names = ["--references", str(files / "references.json")]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 1
    assert "1 of 1 images of" in (err := capsys.readouterr().err)
    assert "the first 'Images/0.jpg': expected the same names in both" in err


def test_a_file_too_few_is_a_wrong_command(files, capsys):
    assert main(["score", "--references", str(files / "references.json")]) == 2
    assert "--predictions" in capsys.readouterr().err
