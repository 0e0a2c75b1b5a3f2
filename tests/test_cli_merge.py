"""`paligemma merge`: a certified file, or none at all."""

import dataclasses
import json

import adapter_cases
import captioning_cases as cases
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.captioner import certificate
from paligemma_lib.checkpoint import adapters
from paligemma_lib.cli import main
from paligemma_lib.testing import tiny_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    pg.checkpoint.save_params(folder / "base.npz", cases.random_params())
    (folder / "tokenizer.model").write_bytes(tiny_tokenizer().serialized())
    in_nf4 = {"base_storage": "nf4"}
    base = str(folder / "base.npz")
    adapter_cases.write_birds_and_dogs(folder, base, size=0.3, metadata=in_nf4)
    cases.write_images(folder / "images", ["a.png", "b.png"])
    return folder


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(certificate, "_TOKENS", 6)


def merge(made, out, *words):
    """Merges `birds` and what `words` add; compares on two images of noise."""
    given = [str(made / "base.npz"), str(made / "birds"), *words, "--out", str(out)]
    return main(["merge", *given, "--images", str(made / "images")])


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_the_merged_model_captions_as_base_and_adapter(made, tmp_path, capsys, name):
    assert merge(made, tmp_path / name) == 0
    told = capsys.readouterr()
    assert "equal greedy captions" in told.out and "2 of 2" in told.out
    assert f"wrote {tmp_path / name}" in told.err and "note:" not in told.err
    kept = tmp_path / name if name == "out" else tmp_path
    assert (kept / "tokenizer.model").read_bytes() == tiny_tokenizer().serialized()
    options = {"max_new_tokens": 6, "batch_size": cases.ROWS}
    images = str(made / "images")
    merged = pg.load(tmp_path / name).caption(images, **options)
    assert [each.text for each in merged] == [
        each.text for each in pg.load(made / "birds").caption(images, **options)
    ]


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_the_merged_model_has_the_image_size_of_the_adapter(made, tmp_path, capsys, name):
    config = dataclasses.replace(
        cases.CONFIG, vision=dataclasses.replace(cases.CONFIG.vision, image_size=48)
    )
    adapter_cases.write_birds_and_dogs(tmp_path, str(made / "base.npz"), size=0.3, config=config)
    words = [str(made / "base.npz"), str(tmp_path / "dogs"), "--out", str(tmp_path / name)]
    assert main(["merge", *words, "--images", str(made / "images")]) == 0
    merged, adapted = pg.load(tmp_path / name), pg.load(tmp_path / "dogs")
    assert merged.config.vision.image_size == 48
    positions = [each.params["img"]["pos_embedding"] for each in (merged, adapted)]
    np.testing.assert_array_equal(*positions)
    # Another one has another size: then the size has to be chosen.
    assert merge(made, tmp_path / "other.npz", str(tmp_path / "dogs")) == 1
    assert "adapters of different image sizes" in capsys.readouterr().err
    chosen = [str(tmp_path / "dogs"), "--image-size", "32"]
    assert merge(made, tmp_path / "other.npz", *chosen) == 0
    assert pg.checkpoint.read_config(tmp_path / "other.npz") == cases.CONFIG


def test_weights_are_given_after_the_folder(made, tmp_path, capsys):
    assert merge(made, tmp_path / "out.npz", f"{made / 'dogs'}=0.5") == 0
    err = capsys.readouterr().err
    assert "dogs was trained beside weights in nf4" in err
    assert main(["show", str(tmp_path / "out.npz")]) == 0
    marks = [
        adapters.fingerprint(adapters.read_adapter(made / name, cases.CONFIG))[:16]
        for name in ("birds", "dogs")
    ]
    shown = capsys.readouterr().out
    assert f"merged into it: adapters {marks[0]} x 1, {marks[1]} x 0.5" in shown
    (record,) = pg.checkpoint.stored.metadata_of(tmp_path / "out.npz").values()
    assert [each["weight"] for each in json.loads(record)] == [1.0, 0.5]


def test_another_base_than_the_adapter_names_is_told(made, tmp_path, capsys):
    pg.checkpoint.save_params(tmp_path / "base.npz", cases.random_params())
    (tmp_path / "tokenizer.model").write_bytes(tiny_tokenizer().serialized())
    (tmp_path / "images").symlink_to(made / "images")
    (tmp_path / "birds").symlink_to(made / "birds")
    assert merge(tmp_path, tmp_path / "out.npz") == 0
    assert f"birds was made for {made / 'base.npz'}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_above_the_bound_nothing_is_left(made, tmp_path, capsys, monkeypatch, name):
    real = certificate.certify

    def worse(*args, **options):
        found = real(*args, **options)
        return dataclasses.replace(found, found=found.adapters)

    monkeypatch.setattr(certificate, "certify", worse)
    assert merge(made, tmp_path / name) == 1
    assert "is not written: it would say something else" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_merging_twice_fails(made, tmp_path, capsys):
    assert merge(made, tmp_path / "once.npz") == 0
    words = [str(tmp_path / "once.npz"), str(made / "birds"), "--out", str(tmp_path / "twice.npz")]
    assert main(["merge", *words]) == 1
    assert "has been merged into" in capsys.readouterr().err
    assert not (tmp_path / "twice.npz").exists()


def test_what_is_there_stays(made, tmp_path, capsys):
    (tmp_path / "out.npz").write_bytes(b"mine")
    assert merge(made, tmp_path / "out.npz") == 1
    assert "exists: remove it" in capsys.readouterr().err
    (tmp_path / "tokenizer.model").write_bytes(b"of another model")
    assert merge(made, tmp_path / "other.npz") == 1
    assert "exists and is of another model" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "tokenizer.model"]
    assert (tmp_path / "out.npz").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nano", "birds=x", "--out", "a.npz"], 2, "expected ADAPTER or ADAPTER=WEIGHT"),
        (["nano", "birds", "--out", "gs://b/a.npz"], 2, "not a local path"),
        (["nano", "birds"], 2, "--out"),
        (["nano", "--out", "a.npz"], 2, "ADAPTER"),
        (["nano", "/nowhere/birds", "--out", "a.npz"], 1, "no such folder on this machine"),
        (["/nowhere/base.npz", "birds", "--out", "a.npz"], 1, "/nowhere/base.npz"),
        (["nano", "birds", "--out", "/nowhere/a.npz"], 1, "is not a folder; create it"),
        (["nano", "birds", "--out", "a.bin"], 1, "expected a name that ends in .npz"),
    ],
)
def test_what_is_wrong_is_told(words, code, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", *words]) == code
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_adapter_of_another_model_is_told_with_all_differences(made, capsys, tmp_path):
    words = ["nano", str(made / "birds"), "--out", str(tmp_path / "a.npz")]
    assert main(["merge", *words]) == 1
    err = capsys.readouterr().err
    assert "not an adapter of this model" in err and "of another shape" in err


def test_the_values_of_the_base_are_rounded_as_asked(made, tmp_path):
    assert merge(made, tmp_path / "out.npz", "--dtype", "float16") == 0
    with pg.checkpoint.stored.open_params(tmp_path / "out.npz", cases.CONFIG) as stored:
        assert {str(array.dtype) for array in stored.values()} == {"float16"}
        found = stored["img/head/kernel"][:].astype(np.float32)
    kernel = cases.random_params()["img"]["head"]["kernel"]
    np.testing.assert_allclose(found, kernel, rtol=2**-11, atol=1e-7)
