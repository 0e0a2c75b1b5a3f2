"""Captioners with adapters: an adapter as a checkpoint, several by name, and shared arrays."""

import dataclasses
import shutil

import adapter_cases
import captioning_cases as cases
import model_cases
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import paligemma_lib as pg
from paligemma_lib.checkpoint import adapters
from paligemma_lib.model.adapter_params import adapters_of, with_adapters
from paligemma_lib.testing import tiny_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a base model, its tokenizer, two adapters and a workdir."""
    folder = tmp_path_factory.mktemp("made")
    pg.checkpoint.save_params(folder / "base.npz", cases.random_params())
    (folder / "tokenizer.model").write_bytes(tiny_tokenizer().serialized())
    adapter_cases.write_birds_and_dogs(folder, str(folder / "base.npz"), size=0.5)
    (folder / "run").mkdir()
    (folder / "dogs").rename(folder / "run" / "adapter")
    return folder


def logits(captioner):
    batch = model_cases.packed_batch(cases.CONFIG)
    return np.asarray(model_cases.all_logits(captioner.config, captioner.params, batch))


def expected(made, path):
    arrays = adapters.read_adapter(made / path, cases.CONFIG)
    params = with_adapters(cases.random_params(), arrays)
    return np.asarray(
        model_cases.all_logits(cases.CONFIG, params, model_cases.packed_batch(cases.CONFIG))
    )


@pytest.mark.parametrize("path", ["birds", "run", "run/adapter"])
def test_an_adapter_is_loaded_with_its_base(made, path):
    captioner = pg.load(made / path)
    np.testing.assert_array_equal(logits(captioner), expected(made, path))
    assert captioner.adapter is None


def test_adapters_are_put_in_place_by_name_and_share_the_base(made):
    base = pg.load(made / "base.npz", adapters={"birds": made / "birds", "dogs": made / "run"})
    assert not adapters_of(base.params)
    birds = base.with_adapter("birds")
    dogs = birds.with_adapter("dogs")
    np.testing.assert_array_equal(logits(birds), expected(made, "birds"))
    np.testing.assert_array_equal(logits(dogs), expected(made, "run"))
    np.testing.assert_array_equal(logits(dogs.with_adapter(None)), logits(base))
    table = base.params["llm"]["embedder"]["input_embedding"]
    assert dogs.params["llm"]["embedder"]["input_embedding"] is table


def test_captions_say_with_which_adapter_they_were_written(made, tmp_path):
    images = cases.write_images(tmp_path, ["a.png", "b.png"])
    base = pg.load(made / "base.npz", adapters={"birds": made / "birds"})
    options = {"max_new_tokens": 6, "batch_size": cases.ROWS}
    plain = base.caption(str(images), **options)
    adapted = base.with_adapter("birds").caption(str(images), **options)
    assert [each.adapter for each in plain + adapted] == [None, None, "birds", "birds"]
    assert [each.text for each in plain] != [each.text for each in adapted]


def test_an_unknown_name_is_told_with_those_there_are(made):
    base = pg.load(made / "base.npz", adapters={"birds": made / "birds"})
    with pytest.raises(ValueError, match="no adapter is named cats; loaded are: birds"):
        base.with_adapter("cats")


def test_a_missing_base_says_how_to_name_another(made, tmp_path):
    arrays = adapter_cases.random_adapters(targets=["attention"])
    folder = adapters.write_adapter(
        tmp_path / "lost", arrays, base="/nowhere/base.npz", config=cases.CONFIG
    )
    with pytest.raises(ValueError, match="is an adapter of /nowhere/base.npz") as error:
        pg.load(folder)
    assert "does not exist" in str(error.value) and "--checkpoint BASE --adapter" in str(
        error.value
    )
    found = pg.load(made / "base.npz", adapters={"lost": folder}).with_adapter("lost")
    assert adapters_of(found.params).keys() == arrays.keys()


def test_an_adapter_of_another_model_is_refused_before_the_base_is_read(
    made, tmp_path, monkeypatch
):
    other = model_cases.tiny_config(2)
    arrays = adapter_cases.random_adapters(other, targets=["llm"])
    folder = adapters.write_adapter(tmp_path / "x", arrays, base="other", config=other)
    monkeypatch.setattr(pg.captioner.loading, "load_params", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match="not an adapter of this model"):
        pg.load(made / "base.npz", adapters={"x": folder})


@pytest.mark.slow
def test_adapters_are_whole_on_each_device(made, run_on_devices):
    program = f"""
        import jax, paligemma_lib as pg
        base = pg.load({str(made / "base.npz")!r}, adapters={{"birds": {str(made / "birds")!r}}})
        birds = base.with_adapter("birds")
        array = birds.params["llm"]["layers"]["lora"]["q_proj"]["a"]
        print(len(array.sharding.device_set), array.is_fully_replicated)
    """
    assert run_on_devices(2, program).split() == ["2", "True"]


@pytest.fixture(scope="module")
def large(made):
    """An adapter of the same base, for images of 48 pixels."""
    vision = dataclasses.replace(cases.CONFIG.vision, image_size=48)
    config = dataclasses.replace(cases.CONFIG, vision=vision)
    arrays = adapter_cases.random_adapters(targets=["attention"], size=0.5)
    return adapters.write_adapter(
        made / "large", arrays, base=str(made / "base.npz"), config=config
    )


def side(captioner):
    """The image size, and the patches along a side that the parameters are for."""
    patches = captioner.params["img"]["pos_embedding"].shape[1]
    return captioner.config.vision.image_size, patches**0.5


def test_an_adapter_sees_images_of_the_size_that_it_was_trained_at(made, large, tmp_path):
    captioner = pg.load(large)
    assert side(captioner) == (48, 6)
    assert side(pg.load(made / "base.npz", adapters={"large": large})) == (48, 6)
    image = cases.write_images(tmp_path, ["a.png"]) / "a.png"
    assert captioner.caption(image, max_new_tokens=6).text
    assert side(pg.load(large, image_size=32)) == (32, 4)
    assert side(pg.load(made / "base.npz", image_size=40)) == (40, 5)


def test_adapters_of_different_sizes_go_together_only_at_a_given_one(made, large):
    both = {"birds": made / "birds", "large": large}
    with pytest.raises(ValueError, match=r"birds at 32 pixels, .*large at 48 pixels.* image_size="):
        pg.load(made / "base.npz", adapters=both)
    with pytest.raises(ValueError, match="do not go together"):
        pg.load(large, adapters={"birds": made / "birds"})
    assert side(pg.load(made / "base.npz", adapters=both, image_size=48)) == (48, 6)


@pytest.mark.parametrize(
    ("told", "message"),
    [("wide", "x: image_size in the metadata='wide', expected a whole number from 1 to 8192"),
     ("99999", "image_size in the metadata=99999"), ("36", "must be a multiple of patch_size=8")],
)  # fmt: skip
def test_a_size_that_no_model_has_is_refused(made, tmp_path, told, message):
    arrays = adapter_cases.random_adapters(targets=["attention"])
    options = {"base": str(made / "base.npz"), "metadata": {"image_size": told}}
    folder = adapters.write_adapter(tmp_path / "x", arrays, config=cases.CONFIG, **options)
    with pytest.raises(ValueError, match=message):
        pg.load(folder)
    assert side(pg.load(folder, image_size=32)) == (32, 4)


def test_an_adapter_that_tells_no_size_has_that_of_the_base(made, tmp_path):
    """Such as peft writes it."""
    folder = shutil.copytree(made / "birds", tmp_path / "birds")
    tensors = safetensors_numpy.load_file(folder / "adapter_model.safetensors")
    safetensors_numpy.save_file(tensors, folder / "adapter_model.safetensors")
    assert adapters.adapter_metadata(folder) == {}
    assert side(pg.load(folder)) == (32, 4)
