"""A whole run on damaged data: what is replaced, what is left out, and what the results say."""

import json

import pytest
from data_cases import slow_jpeg
from finetune_cases import finetune, of, tiny_run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_says_what_was_damaged_and_goes_on_when_it_is_repaired(tmp_path, capsys):
    config = tiny_run(tmp_path)
    image = tmp_path / "2.png"
    whole = image.read_bytes()
    image.write_bytes(slow_jpeg(5000))
    rows = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(rows + '{"image": null, "suffix": "a dog"}\n')
    workdir = tmp_path / "run"
    changes = {"data.on_corrupt_image": "replace", "data.max_corrupt": 0.02, "epochs": 1.0}

    with pytest.raises(ValueError, match=r"train.jsonl, line 13 has no image"):
        finetune(of(config, tmp_path / "strict"))
    with pytest.raises(ValueError, match=r"2 of 13 records are damaged so far"):
        finetune(of(config, tmp_path / "few", **changes | {"data.max_corrupt": 0.01}))
    capsys.readouterr()

    assert finetune(of(config, workdir, **changes)) == 0
    told = "3 damaged records were replaced by others: 2 in train, 1 in validation"
    report, printed = (workdir / "report.html").read_text(), capsys.readouterr().out
    for text in (report, printed):
        assert told in text and "Left out as damaged, and not scored: 1 images." in text
    found = json.loads((workdir / "damaged_records.json").read_text())
    assert {split: [*each] for split, each in found.items()} == {
        "train": ["2", "12"],
        "validation": ["2"],
    }
    assert "more than 100 scans" in found["train"]["2"] and "line 13" in found["train"]["12"]
    (warning,) = [
        w for w in json.loads((workdir / "scores.json").read_text())["warnings"] if "scans" in w
    ]
    assert warning.startswith("Skipped ") and "other.jsonl, line 3" in warning and warning in report
    captioned = [
        each["image_id"] for each in json.loads((workdir / "predictions.json").read_text())
    ]
    assert captioned == ["0.png", "1.png", "3.png"]

    image.write_bytes(whole)
    changes |= {"epochs": 2.0, "allow_changed": ("epochs", "data")}
    assert finetune(of(config, workdir, **changes)) == 0
    assert "1 damaged records were replaced by others: 1 in train" in capsys.readouterr().out
    # The image has changed, so the captions before training are made again, of all images.
    assert [
        [each["image_id"] for each in json.loads((workdir / name).read_text())]
        for name in ("predictions_before.json", "predictions.json")
    ] == [["0.png", "1.png", "2.png", "3.png"]] * 2
    warnings = json.loads((workdir / "scores.json").read_text())["warnings"]
    assert not [warning for warning in warnings if "lack" in warning]

    before = json.loads((workdir / "predictions_before.json").read_text())
    (workdir / "predictions_before.json").write_text(json.dumps(before[1:]))
    assert finetune(of(config, workdir, **changes)) == 0
    warnings = json.loads((workdir / "scores.json").read_text())["warnings"]
    assert any("captions before training lack 1 test images, such as 0.png" in w for w in warnings)
