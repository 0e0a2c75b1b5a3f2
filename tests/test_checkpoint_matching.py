"""Files and models that do not belong together: what is said, and parts loaded on purpose."""

import model_cases as cases
import numpy as np
import pytest
from checkpoint_cases import CONFIG, FLAT, PARAMS, assert_equal

from paligemma_lib import model
from paligemma_lib.checkpoint import load_params, save_params


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.npz"


def saved(path, changes):
    flat = {name: value for name, value in {**FLAT, **changes}.items() if value is not None}
    np.savez(path, **flat)
    return path


def test_all_differences_are_in_one_error(path):
    kernel = FLAT["img/head/kernel"]
    saved(
        path,
        {
            "llm/final_norm/scale": None,
            "llm/surplus": np.zeros(3, np.float32),
            "img/head/kernel": kernel[:-1],
            "img/head/bias": np.zeros(64),
        },
    )
    with pytest.raises(ValueError) as caught:
        load_params(path, CONFIG)
    message = str(caught.value)
    assert message.startswith(f"{path} does not hold the parameters of this model.")
    assert "1 missing: llm/final_norm/scale" in message
    assert "1 unexpected: llm/surplus" in message
    assert "1 of another shape: img/head/kernel [47, 64], expected [48, 64]" in message
    assert "1 of another dtype: img/head/bias float64" in message
    assert "float32, bfloat16, float16" in message


def test_another_model_is_named(path):
    save_params(path, cases.random_params(model.variants.nano(48)))
    with pytest.raises(
        ValueError, match=r"It is nano at 48 pixels: use variants.nano\(image_size="
    ):
        load_params(path, CONFIG)
    save_params(path, PARAMS)
    with pytest.raises(ValueError, match="It is another model at 32 pixels: call .*read_config"):
        load_params(path, cases.tiny_config(1))


def test_a_part_is_loaded_on_purpose_only(path):
    vision = {name: value for name, value in FLAT.items() if name.startswith("img/")}
    np.savez(path, **vision)
    with pytest.raises(ValueError, match=r"missing: llm/.*(?s:.*)parts=\('img',\)"):
        load_params(path, CONFIG)
    assert_equal(load_params(path, CONFIG, parts=("img",)), vision, "float32")
    np.savez(path, **FLAT)
    assert_equal(load_params(path, CONFIG, parts=("img",)), vision, "float32")
    np.savez(path, **FLAT, other=np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="1 unexpected: other"):
        load_params(path, CONFIG, parts=("img",))


@pytest.mark.parametrize("parts", ["img", (), ("vision",)])
def test_unknown_parts_are_an_error(path, parts):
    with pytest.raises(ValueError, match="expected a tuple of one or more"):
        load_params(path, CONFIG, parts=parts)
