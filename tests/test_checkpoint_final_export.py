"""What a run has learned is written, in another type if need be, as a file or as a folder."""

import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from checkpoint_cases import CONFIG, FLAT, PARAMS, assert_equal

from paligemma_lib.checkpoint import export_final, load_params, read_config
from paligemma_lib.testing import tiny_tokenizer

TOKENIZER = tiny_tokenizer().serialized()


@pytest.fixture(params=["a.npz", "model"])
def target(request, tmp_path):
    return tmp_path / request.param


def with_value(value):
    flat = {name: values.copy() for name, values in FLAT.items()}
    flat["llm/final_norm/scale"][3] = value
    return flat


def written_tokenizer(target):
    return ((target if target.is_dir() else target.parent) / "tokenizer.model").read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_fits_is_written_as_asked(target, dtype, caplog):
    assert export_final(target, PARAMS, CONFIG, dtype=dtype, tokenizer=TOKENIZER) == dtype
    assert_equal(load_params(target, CONFIG), FLAT, dtype)
    assert read_config(target) == CONFIG
    assert written_tokenizer(target) == TOKENIZER
    assert not caplog.records


@pytest.mark.parametrize(
    ("value", "dtype", "used", "warnings"),
    [
        (70_000.0, "float16", "bfloat16", 1),
        (float(np.finfo(np.float32).max), "bfloat16", "float32", 1),
        (-float(np.finfo(np.float32).max), "float16", "float32", 2),
    ],
)
def test_what_overflows_is_written_in_a_wider_type(target, value, dtype, used, warnings, caplog):
    flat = with_value(value)
    params = jax.tree.map(jnp.asarray, cases.unflatten(flat))
    assert export_final(target, params, CONFIG, dtype=dtype, tokenizer=TOKENIZER) == used
    assert_equal(load_params(target, CONFIG), flat, used)
    assert len(caplog.records) == warnings
    assert "llm/final_norm/scale has values up to" in caplog.text
    assert f"{target} is written in {used}, not" in caplog.text
    names = sorted(path.name for path in target.parent.iterdir())
    assert names == (["a.npz", "tokenizer.model"] if target.suffix else ["model"])


def test_what_is_no_number_is_not_written(target):
    params = cases.unflatten(with_value(np.nan))
    with pytest.raises(ValueError, match=r"in llm/final_norm/scale \(1 of 64\)"):
        export_final(target, params, CONFIG, dtype="float16", tokenizer=TOKENIZER)
    assert not list(target.parent.iterdir())


def test_a_name_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ends in .safetensors, expected"):
        export_final(
            tmp_path / "a.safetensors", PARAMS, CONFIG, dtype="float16", tokenizer=TOKENIZER
        )


def test_an_earlier_export_is_replaced(target):
    for dtype in ("float16", "bfloat16"):
        export_final(target, PARAMS, CONFIG, dtype=dtype, tokenizer=TOKENIZER)
        assert_equal(load_params(target, CONFIG), FLAT, dtype)
    assert len(list(target.parent.iterdir())) == (2 if target.suffix else 1)


def test_an_earlier_export_stays_until_the_new_one_is_there(target):
    export_final(target, PARAMS, CONFIG, dtype="float16", tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="NaN"):
        export_final(
            target, cases.unflatten(with_value(np.nan)), CONFIG, dtype="float16", tokenizer=b""
        )
    assert_equal(load_params(target, CONFIG), FLAT, "float16")
    assert written_tokenizer(target) == TOKENIZER


@pytest.mark.parametrize("names", [["notes.txt"], ["config.json", "notes.txt"]])
def test_a_folder_of_other_things_is_left_alone(tmp_path, names):
    (tmp_path / "model").mkdir()
    for name in names:
        (tmp_path / "model" / name).write_text("mine")
    with pytest.raises(FileExistsError, match="model exists"):
        export_final(tmp_path / "model", PARAMS, CONFIG, dtype="float16", tokenizer=TOKENIZER)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == names
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
