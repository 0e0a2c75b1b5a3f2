import json
from pathlib import Path

import captioning_cases as cases
import pytest
from finetune_cases import finetune, of, tiny_run, write_config
from report_cases import Page

import paligemma_lib as pg
from paligemma_lib.cli import evaluate, evaluation_reports, main
from paligemma_lib.metrics import compare, permuted, read_predictions, score, write_predictions
from paligemma_lib.metrics.java_scores import JavaScore
from paligemma_lib.sample_data import write_scenes

NAMES = [f"{k}.png" for k in range(5)]
REFERENCES = {
    name: [f"a dog number {k} runs on the beach .", f"dog {k} is running fast ."]
    for k, name in enumerate(NAMES)
}


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> list[str]:
    return cases.write_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images in Kaggle's layout."""
    cases.write_images(tmp_path / "data" / "Images", NAMES)
    rows = [f"{name},{text}" for name, texts in REFERENCES.items() for text in texts]
    (tmp_path / "data" / "captions.txt").write_text("\n".join(["image,caption", *rows]))
    return tmp_path / "data"


def test_a_checkpoint_is_scored_and_shown(captioner, folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", *captioner, "--data", str(folder), "--out-dir", str(out)]) == 0

    captions = read_predictions(out / "predictions.json")
    paths = [folder / "Images" / name for name in NAMES]
    assert captions == dict(zip(NAMES, cases.captions_of(captioner[1], paths), strict=True))
    expected = score(REFERENCES, captions)
    saved = json.loads((out / "scores.json").read_text("utf-8"))
    assert list(saved["scores"]) == ["CIDEr", "BLEU-4", "ROUGE-L", "BLEU-1"]
    for name, row in saved["scores"].items():
        assert row["value"] == 100 * expected.corpus[name]
        assert [row["low"], row["high"]] == [100 * bound for bound in expected.intervals()[name]]
        assert row["permuted"] == 100 * permuted(REFERENCES, captions, seed=0).corpus[name]
    assert saved["scale"] == 100
    *warnings, cut_off = saved["warnings"]
    assert warnings == list(expected.warnings) and "are cut off after 6 tokens" in cut_off

    page = Page((out / "report.html").read_text("utf-8"))
    assert len(page.all("img")) == 5
    assert set(captions.values()) | set(REFERENCES["0.png"]) <= set(page.texts)
    assert f"5 images of {folder}" in page.texts
    assert {"Before", "Training"}.isdisjoint(page.texts)
    assert capsys.readouterr().out.startswith(f"CIDEr is {100 * expected.corpus['CIDEr']:.1f} (")


def test_alone_it_evaluates_the_model_of_the_library_on_drawn_images(tmp_path, monkeypatch):
    monkeypatch.setattr(pg.hub.fetching, "NANO", cases.write_nano(tmp_path))
    monkeypatch.setattr(evaluate, "DRAWN", 3)
    out = tmp_path / "out"
    assert main(["evaluate", *cases.OPTIONS, "--out-dir", str(out)]) == 0
    assert list(read_predictions(out / "predictions.json")) == [
        f"scene_{number:05d}.jpg" for number in range(3)
    ]
    page = Page((out / "report.html").read_text("utf-8"))
    assert "3 drawn images" in page.texts
    unseen = pg.data.from_folder(str(write_scenes(tmp_path / "a", 3, seed=1, wording="labels")))
    assert {text for record in unseen.read(range(3)) for text in record.captions} <= set(page.texts)


def test_java_scores_are_told_if_they_are_wanted(folder, tmp_path, monkeypatch, capsys):
    write_predictions(tmp_path / "a.json", dict.fromkeys(NAMES, "a cat sleeps"))
    given = ["--compare", *[str(tmp_path / "a.json")] * 2, "--data", str(folder)]
    given += ["--out-dir", str(tmp_path / "out")]
    monkeypatch.setattr(evaluation_reports, "meteor", lambda *_: JavaScore(0.25, None))
    monkeypatch.setattr(evaluation_reports, "spice", lambda *_: JavaScore(None, "SPICE needs Java"))
    assert main(["evaluate", *given]) == 0
    assert "METEOR" not in capsys.readouterr().out
    assert main(["evaluate", *given, "--java-scores"]) == 0
    assert "\nMETEOR is 25.0.\nSPICE needs Java.\n" in capsys.readouterr().out


def test_damaged_images_are_not_scored_and_said_to_be_skipped(captioner, folder, tmp_path):
    (folder / "Images" / "1.png").write_bytes(b"damaged")
    out = tmp_path / "out"
    arguments = [*captioner, "--data", str(folder), "--out-dir", str(out)]
    assert main(["evaluate", *arguments]) == 1
    assert list(read_predictions(out / "predictions.json")) == ["0.png", "2.png", "3.png", "4.png"]
    (skipped,) = [
        w for w in json.loads((out / "scores.json").read_text())["warnings"] if "Skipped" in w
    ]
    assert "captions.txt, line 4" in skipped
    assert "not a complete JPEG" in skipped


def test_two_files_of_predictions_are_compared_without_a_model(folder, tmp_path, capsys):
    former = dict.fromkeys(NAMES, "a cat sleeps")
    latter = {name: texts[0] for name, texts in REFERENCES.items()}
    write_predictions(tmp_path / "a.json", former)
    write_predictions(tmp_path / "b.json", latter)
    out = tmp_path / "out"
    arguments = ["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main(["evaluate", *arguments, "--data", str(folder), "--out-dir", str(out)]) == 0
    one, two = score(REFERENCES, former), score(REFERENCES, latter)
    row = json.loads((out / "scores.json").read_text())["scores"]["CIDEr"]
    assert row["value"] == pytest.approx(100 * two.corpus["CIDEr"])
    assert row["before"] == pytest.approx(100 * one.corpus["CIDEr"])
    change = compare(two, one)["CIDEr"]
    assert change.value > 0
    assert capsys.readouterr().out.startswith(
        f"CIDEr rose from {100 * one.corpus['CIDEr']:.1f} to {100 * two.corpus['CIDEr']:.1f}, by "
        f"{100 * change.value:.1f} (p = {change.p_value:.2g}); with the images permuted"
    )
    page = Page((out / "report.html").read_text("utf-8"))
    assert page.texts.count("a cat sleeps") == 5
    assert {"a.json", "b.json", "python", str(folder), *latter.values()} <= set(page.texts)
    assert f"5 images of {folder}" in page.texts


def test_a_checkpoint_and_predictions_are_too_much(tmp_path, capsys):
    arguments = ["--checkpoint", "my.npz", "--compare", "a.json", "b.json"]
    given = [*arguments, "--data", "x", "--out-dir", str(tmp_path)]
    assert main(["evaluate", *given]) == 2
    assert "--compare takes no --checkpoint" in capsys.readouterr().err
    assert main(["evaluate", "--data", "x", "--data", "y", "--out-dir", str(tmp_path)]) == 2
    assert "--data x and --data y: give one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_evaluated_as_it_evaluates_itself(tmp_path):
    config = of(tiny_run(tmp_path), tmp_path / "run", epochs=0.34, evaluate_before=False)
    assert finetune(config) == 0
    file = write_config(config, tmp_path / "config.py")
    out = tmp_path / "out"
    assert main(["evaluate", f"--config={file}", "--out-dir", str(out)]) == 0
    name = "predictions.json"
    assert read_predictions(out / name) == read_predictions(tmp_path / "run" / name)


def test_masks_of_a_config_are_for_its_own_task(captioner, tmp_path):
    config = tiny_run(tmp_path)
    config.task, config.masks = "segment", "no-such-file.npz"
    file = write_config(config, tmp_path / "config.py")
    given = ["evaluate", f"--config={file}", *captioner, "--task", "caption"]
    assert main([*given, "--out-dir", str(tmp_path / "out")]) == 0


def test_predictions_of_other_images_are_refused(folder, tmp_path, capsys):
    write_predictions(tmp_path / "a.json", {"other.png": "a dog"})
    given = ["--compare", str(tmp_path / "a.json"), str(tmp_path / "a.json")]
    out = tmp_path / "out"
    assert main(["evaluate", *given, "--data", str(folder), "--out-dir", str(out)]) == 1
    assert "1 of 1 images of" in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_images_without_captions_by_people_cannot_be_scored(captioner, folder, tmp_path, capsys):
    lines = tmp_path / "data" / "Images" / "data.jsonl"
    lines.write_text("\n".join(json.dumps({"image": name}) for name in NAMES))
    out = tmp_path / "out"
    assert main(["evaluate", *captioner, "--data", str(lines), "--out-dir", str(out)]) == 1
    assert "references that are empty or not a sequence of str" in capsys.readouterr().err


def test_a_prompt_of_the_data_goes_before_the_one_of_the_command(captioner, folder, tmp_path):
    def predictions(prefix: dict[str, str], *arguments: str) -> dict:
        lines = folder / "Images" / "data.jsonl"
        rows = [{"image": name, "suffix": REFERENCES[name], **prefix} for name in NAMES]
        lines.write_text("\n".join(map(json.dumps, rows)))
        given = ["--data", str(lines), "--out-dir", str(tmp_path / "out"), *arguments]
        assert main(["evaluate", *captioner, *given]) == 0
        return read_predictions(tmp_path / "out" / "predictions.json")

    of_the_data = predictions({"prefix": "caption de"}, "--prompt", "caption fr")
    assert of_the_data == predictions({}, "--prompt", "caption de")
    assert of_the_data != predictions({}, "--prompt", "caption fr")


@pytest.mark.parametrize("command", ["evaluate", "caption"])
def test_data_without_images_are_not_replaced_by_drawn_ones(command, captioner, tmp_path, capsys):
    (tmp_path / "none.csv").write_text("image,caption\n")
    (tmp_path / "1.png").write_bytes(b"")  # a folder of images has files
    given = ["--data", str(tmp_path / "none.csv"), "--out-dir", str(tmp_path / "out")]
    code = main([command, *captioner, *given])
    printed = capsys.readouterr()
    assert "scene" not in printed.out
    if command == "evaluate":
        assert code == 1 and "none of 0 images could be captioned" in printed.err
