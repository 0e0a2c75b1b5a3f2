"""Names of files may be any bytes, and captions begin with any character."""

import os

import pytest
from data_cases import photo
from pipeline_cases import evaluate

from paligemma_lib.data import from_image_files, open_source

ODD = os.fsdecode(b"caf\xe9.png")  # no UTF-8


def test_names_that_are_not_utf8_go_through_training_and_evaluation(tmp_path):
    (tmp_path / ODD).write_bytes(photo(0))
    (tmp_path / ODD.replace(".png", ".txt")).write_text("a dog")
    source = open_source(str(tmp_path))
    assert source.read([0])[0].image_id == ODD
    assert len(source.fingerprint()) == 33
    assert sum(len(open_source(str(tmp_path), split=each)) for each in ("train", "test")) <= 1
    (batch,) = evaluate(source, batch_size=1)
    assert batch["image_id"].tolist() == [ODD]
    assert from_image_files([str(tmp_path)]).names == (ODD,)


@pytest.mark.parametrize("name", ["captions.txt", "x.csv", "x.tsv"])
def test_captions_that_look_like_formulas_or_guards_stay_as_they_are(tmp_path, name):
    captions = ["'tis a dog", "'=1+1", "=1+1", "+1", "-1", "@here"]
    mark = "\t" if name.endswith("tsv") else ","
    rows = [mark.join(["image", "caption"]), *(f"a.png{mark}{each}" for each in captions)]
    (tmp_path / name).write_text("\n".join(rows))
    (tmp_path / "a.png").write_bytes(photo(0))
    assert list(open_source(str(tmp_path / name)).read([0])[0].captions) == captions
