"""`paligemma caption --adapter`, `evaluate --adapter`, and `show` of an adapter."""

import csv
import json

import adapter_cases
import captioning_cases as cases
import pytest
from pyarrow import parquet

import paligemma_lib as pg
from paligemma_lib.checkpoint import adapters
from paligemma_lib.cli import main


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return cases.write_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def made(captioner, tmp_path_factory):
    """A folder with two adapters and two images."""
    folder = tmp_path_factory.mktemp("made")
    adapter_cases.write_birds_and_dogs(folder, captioner[1], size=0.5)
    cases.write_images(folder / "images", ["a.png", "b.png"])
    return folder


def texts(made, captioner, adapter):
    base = pg.load(captioner[1], captioner[3], adapters={"it": made / adapter} if adapter else {})
    chosen = base.with_adapter("it") if adapter else base
    found = chosen.caption(str(made / "images"), max_new_tokens=6, batch_size=cases.ROWS)
    return [each.text for each in found]


def test_an_adapter_as_a_checkpoint_captions_with_its_base(made, captioner, capsys):
    words = ["--checkpoint", str(made / "birds"), *captioner[2:]]
    assert main(["caption", str(made / "images"), *words]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line[30:] for line in printed] == texts(made, captioner, "birds")
    assert texts(made, captioner, "birds") != texts(made, captioner, None)


def test_several_adapters_say_which_caption_is_whose(made, captioner, capsys, tmp_path):
    given = ["--adapter", str(made / "birds"), "--adapter", f"hounds={made / 'dogs'}"]
    out = tmp_path / "out"
    words = [str(made / "images"), *captioner, *given, "--out-dir", str(out)]
    assert main(["caption", *words, "--out", str(tmp_path / "captions.parquet")]) == 0
    (birds, other_bird), (dogs, other_dog) = (
        texts(made, captioner, name) for name in ("birds", "dogs")
    )
    expected = [
        ("a.png", birds, "birds"),
        ("a.png", dogs, "hounds"),
        ("b.png", other_bird, "birds"),
        ("b.png", other_dog, "hounds"),
    ]
    printed = capsys.readouterr().out.splitlines()
    assert [(line[:28].strip(), line[38:], line[30:36].strip()) for line in printed] == expected
    with open(out / "captions.csv", newline="", encoding="utf-8") as file:
        assert list(map(tuple, csv.reader(file)))[1:] == expected
    lines = [json.loads(line) for line in (out / "captions.jsonl").read_text("utf-8").splitlines()]
    assert [(each["image"], each["caption"], each["adapter"]) for each in lines] == expected
    rows = parquet.read_table(tmp_path / "captions.parquet").to_pylist()
    assert [(each["image"], each["caption"], each["adapter"]) for each in rows] == expected
    assert "hounds: " in (out / "captions.html").read_text("utf-8")


def test_an_image_that_is_damaged_is_skipped_once(made, captioner, capsys, tmp_path):
    cases.write_images(tmp_path, ["a.png"])
    (tmp_path / "bad.png").write_bytes(b"no image")
    given = ["--adapter", str(made / "birds"), "--adapter", str(made / "dogs")]
    assert main(["caption", str(tmp_path), *captioner, *given]) == 1
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2
    assert "1 of 2 images were skipped" in told.err and told.err.count("skipped") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["caption", "--adapter", "a/x", "--adapter", "b/x"], "two are named x"),
        (["caption", "--adapter", "=x"], "expected PATH or NAME=PATH"),
        (["caption", "--adapter", "x="], "expected PATH or NAME=PATH"),
        (["evaluate", "--out-dir", "o", "--adapter", "a", "--adapter", "b"], "give one"),
        (["evaluate", "--out-dir=o", "--compare", "a", "b", "--adapter=c"], "takes no --adapter"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_told(words, told, capsys):
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_an_adapter_is_shown(made, captioner, capsys):
    assert main(["show", str(made / "birds")]) == 0
    out = capsys.readouterr().out
    assert f"an adapter (LoRA) of {captioner[1]}, rank 3, scale 6 / rank, float32" in out
    assert "q_proj, k_proj, v_proj, o_proj in 3 layers of the language model, rank 3" in out
    assert "they fit the base, all values are finite, fingerprint" in out


def test_an_adapter_without_its_base_is_shown_too(tmp_path, capsys):
    arrays = adapter_cases.random_adapters(dora=True)
    folder = adapters.write_adapter(
        tmp_path / "a", arrays, base="google/x", config=cases.CONFIG, rslora=True,
        metadata={"base_storage": "nf4\x1b"},
    )  # fmt: skip
    assert main(["show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "an adapter (DoRA) of google/x, rank 3, scale" in out and "/ sqrt(rank)" in out
    assert "the projector, rank 3" in out
    assert "fc1, fc2" in out and "in 2 layers of the vision model" in out
    assert "not compared with the base model, which is not here" in out
    assert r"base_storage: nf4\x1b" in out


def test_an_adapter_that_does_not_fit_its_base_is_told(tmp_path, made, capsys):
    arrays = adapter_cases.random_adapters(targets=["attention"])
    folder = adapters.write_adapter(tmp_path / "a", arrays, base="nano", config=cases.CONFIG)
    assert main(["show", str(folder)]) == 1
    assert "not an adapter of this model, nano at 96 pixels" in capsys.readouterr().err
