"""`paligemma score`: the scores of the library, for files of any form."""

import importlib.util
import json

import mask_cases
import pytest

from paligemma_lib import embedding
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
    (files / "captions.csv").write_text("image,caption\nImages/7.jpg,a dog\n0.jpg,a dog\n")
    names = ["--references", str(files / "references.json")]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 1
    assert "1 of 2 images of" in (err := capsys.readouterr().err)
    assert "or none that are theirs alone: 'Images/7.jpg'; the references name '0.jpg'" in err


def test_names_are_matched_by_the_rule_of_data(files, capsys):
    rows = "".join(f"Images/{image.upper()},{text}\n" for image, text in CAPTIONS.items())
    (files / "loose.csv").write_text(f"image,caption\n{rows}")
    names = ["--references", str(files / "references.json")]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 0
    exact = capsys.readouterr()
    assert main(["score", *names, "--predictions", str(files / "loose.csv")]) == 0
    loose = capsys.readouterr()
    assert loose.out == exact.out
    assert "3 names were matched loosely: 'Images/0.JPG' is '0.jpg'" in loose.err
    assert "matched loosely" not in exact.err


def test_coco_s_images_go_by_number_and_by_file(files, capsys, monkeypatch):
    images = [{"id": 40 + k, "file_name": f"COCO_{k}.jpg"} for k in range(4)]
    rows = [
        {"image_id": 40 + k, "caption": each} for k in range(4) for each in REFERENCES[f"{k}.jpg"]
    ]
    coco = {"images": images, "annotations": rows}
    (files / "coco.json").write_text(json.dumps(coco))
    said = [CAPTIONS[f"{k}.jpg"] for k in range(3)]
    names = ["--references", str(files / "coco.json"), "--predictions", str(files / "p.json")]
    (files / "Images").mkdir()
    for k in range(3):
        (files / "Images" / f"COCO_{k}.jpg").write_bytes(b"%d" % k)
    seen = []

    def score_images(model, images, captions, references):
        seen.append({image: read() for image, read in images.items()})
        return score(references, captions)

    monkeypatch.setattr(embedding, "load", lambda name: name)
    monkeypatch.setattr(embedding, "score_images", score_images)
    for image in ("{id}", "{file_name}"):
        ids = [image.format(**each) for each in images[:3]]
        (files / "p.json").write_text(json.dumps(dict(zip(ids, said, strict=True))))
        clip = ["--clip", "a/b", "--images", str(files / "Images")]
        assert main(["score", *names, *clip]) == 0
        assert capsys.readouterr().out.startswith("3 images")
    assert seen == 2 * [{40 + k: b"%d" % k for k in range(3)}]


def test_two_captions_for_one_image_are_no_match(files, capsys):
    (files / "captions.csv").write_text("image,caption\n0.jpg,a dog\na/0.jpg,a cat\n")
    names = ["--references", str(files / "references.json")]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 1
    assert "2 of 2 images of" in capsys.readouterr().err


def test_a_corpus_says_which_words_are_rare(files, capsys):
    names = ["--predictions", str(files / "captions.csv"), "--references"]
    given = [*names, str(files / "references.json"), "--json"]
    (files / "corpus.json").write_text(json.dumps({k: REFERENCES[k] for k in CAPTIONS}))
    assert main(["score", *given]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main(["score", *given, "--corpus", str(files / "corpus.json")]) == 0
    assert json.loads(capsys.readouterr().out) == plain
    (files / "captions.csv").write_text("image,caption\n0.jpg,a dog number 0 runs\n")
    assert main(["score", *given]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["CIDEr"]["value"] == 0
    assert main(["score", *given, "--corpus", str(files / "references.json")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scores"]["CIDEr"]["value"] > 100 and found["warnings"] == []


def test_a_file_too_few_is_a_wrong_command(files, capsys):
    assert main(["score", "--references", str(files / "references.json")]) == 2
    assert "--predictions" in capsys.readouterr().err


def test_a_model_for_images_needs_them_and_each_caption_needs_its_own(files, tmp_path, capsys):
    names = ["--references", str(files / "references.json")]
    names += ["--predictions", str(files / "captions.csv")]
    assert main(["score", *names, "--clip", "a/b"]) == 2
    assert "--clip needs --images" in capsys.readouterr().err
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "0.jpg").touch()
    assert main(["score", *names, "--clip", "a/b", "--images", str(tmp_path / "Images")]) == 1
    told = capsys.readouterr().err
    assert "2 of 3 captions have no image of their name in" in told and "'1.jpg', '2.jpg'" in told


def test_scores_by_java_that_cannot_run_are_told(files, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    names = ["--references", str(files / "references.json"), "--java-scores"]
    assert main(["score", *names, "--predictions", str(files / "captions.csv")]) == 1
    said = capsys.readouterr()
    assert "CIDEr" in said.out and "METEOR needs pycocoevalcap" in said.err


def test_masks_are_scored_by_the_codec_that_is_named(tmp_path, capsys):
    codec = str(mask_cases.write_codec(tmp_path / "vae.npz", **mask_cases.square_arrays()))
    codes = "".join(f"<seg{k % 2:03d}>" for k in range(16))
    text = f"<loc0000><loc0000><loc1023><loc1023>{codes} dog"
    (tmp_path / "texts.json").write_text(json.dumps({"1.jpg": [text]}))
    names = [f"--{name}={tmp_path / 'texts.json'}" for name in ("references", "predictions")]
    assert main(["score", *names, "--task=segment", f"--masks={codec}"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["Mean", "mask", "IoU", "100.0"]
    assert main(["score", *names, "--task=segment"]) == 2
    assert "needs --masks: gs://big_vision/paligemma/vae-oid.npz" in capsys.readouterr().err
    assert main(["score", *names, f"--masks={codec}"]) == 2
    assert "--masks has no effect without --task segment" in capsys.readouterr().err
    assert main(["score", *names, "--task=segment", f"--masks={tmp_path / 'texts.json'}"]) == 1
    assert "texts.json" in capsys.readouterr().err
