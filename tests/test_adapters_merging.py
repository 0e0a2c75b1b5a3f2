"""Adapters merged into weights: the same model, linear in the weights, and never twice."""

import json

import adapter_cases as cases
import model_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib.checkpoint import adapters, huggingface, load_params, read_config, save_params
from paligemma_lib.checkpoint.adapters.combining import changed, combined
from paligemma_lib.checkpoint.adapters.merge_record import merged_adapters
from paligemma_lib.checkpoint.adapters.merging import combine, merge
from paligemma_lib.checkpoint.conversion import convert
from paligemma_lib.checkpoint.stored import metadata_of
from paligemma_lib.model.adapter_params import with_adapters
from paligemma_lib.model.projections import PROJECTIONS, adapter_name
from paligemma_lib.testing import tiny_tokenizer

CONFIG = cases.CONFIG
PARAMS = model_cases.random_params(CONFIG)
FLAT = model_cases.flatten(PARAMS)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.npz"
    save_params(path, PARAMS)
    return path


def adapter(folder, name="birds", **options):
    arrays = cases.random_adapters(**options)
    adapters.write_adapter(folder / name, arrays, base="base.npz", config=CONFIG)
    return folder / name, arrays


def merged(base, given, target, **options):
    merge(base, combine(base, given), target, **options)
    return load_params(target, read_config(target))


def logits(params):
    return np.asarray(model_cases.all_logits(CONFIG, params, model_cases.packed_batch(CONFIG)))


@pytest.mark.parametrize("target", ["out.npz", "out"])
@pytest.mark.parametrize("dora", [False, True])
def test_a_merged_model_says_what_base_and_adapter_say(tmp_path, base, target, dora):
    folder, arrays = adapter(tmp_path, dora=dora)
    found = merged(base, [(folder, 1.0)], tmp_path / target)
    expected = logits(with_adapters(PARAMS, arrays))
    assert np.abs(expected - logits(PARAMS)).max() > 0.5
    assert np.abs(logits(found) - expected).max() < 1e-4


@pytest.mark.parametrize("dora", [False, True])
def test_what_is_not_adapted_stays_as_it_is(tmp_path, base, dora):
    folder, arrays = adapter(tmp_path, targets=["llm/v_proj"], dora=dora)
    for array in arrays.values():
        array[1] = 0
    adapters.write_adapter(folder, arrays, base="x", config=CONFIG)
    found = model_cases.flatten(merged(base, [(folder, 1.0)], tmp_path / "out.npz"))
    values = "llm/layers/attn/kv_einsum/w"
    differ = {name for name in FLAT if not np.array_equal(found[name], FLAT[name])}
    assert differ == {values}
    np.testing.assert_array_equal(found[values][:, 0], FLAT[values][:, 0])
    np.testing.assert_array_equal(found[values][1], FLAT[values][1])


def matrix(product, layer):
    projection = PROJECTIONS[product]
    weight = FLAT[projection.weight]
    return projection.matrix(weight[layer] if projection.is_stacked else weight)


def layer_of(arrays, product, layer):
    place = f"{adapter_name(product)}/"
    return {n.removeprefix(place): a[layer] for n, a in arrays.items() if n.startswith(place)}


@given(
    weights=st.lists(st.floats(-2, 2), min_size=1, max_size=3),
    kinds=st.lists(st.booleans(), min_size=3, max_size=3),
    ranks=st.lists(st.integers(1, 5), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_a_merge_is_linear_in_the_weights(weights, kinds, ranks):
    """The change of the combination is the weighted sum of the changes, LoRA or DoRA."""
    products = ["llm/q_proj", "llm/up_proj", "img/out_proj", "img/projector"]
    each = [
        cases.random_adapters(targets=products, dora=dora, rank=rank, seed=number)
        for number, (_, dora, rank) in enumerate(zip(weights, kinds, ranks, strict=False))
    ]
    one = combined(list(zip(each, weights, strict=True)), CONFIG, matrix)
    for product in products:
        before = matrix(product, 0)
        expected = before.astype(np.float64)
        for weight, arrays in zip(weights, each, strict=True):
            expected += weight * (changed(before, layer_of(arrays, product, 0)) - before)
        found = changed(before, layer_of(one, product, 0))
        assert np.abs(found - expected).max() < 1e-4


def test_several_adapters_are_merged_with_their_weights(tmp_path, base):
    birds, _ = adapter(tmp_path, "birds", seed=1, targets=["attention"])
    dogs, _ = adapter(tmp_path, "dogs", seed=2, dora=True, rank=5)
    given = [(birds, 0.5), (dogs, -0.25)]
    found = merged(base, given, tmp_path / "out.npz")
    combination = combine(base, given)
    expected = logits(with_adapters(PARAMS, combination.arrays))
    assert np.abs(logits(found) - expected).max() < 1e-4
    assert [each.weight for each in merged_adapters(metadata_of(tmp_path / "out.npz"))] == [
        0.5, -0.25,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_values_are_rounded_once(tmp_path, base, dtype):
    folder, arrays = adapter(tmp_path, targets=["llm/down_proj"], dora=True)
    found = model_cases.flatten(merged(base, [(folder, 1.0)], tmp_path / "out.npz", dtype=dtype))
    for layer in range(3):
        exact = changed(matrix("llm/down_proj", layer), layer_of(arrays, "llm/down_proj", layer))
        np.testing.assert_array_equal(found["llm/layers/mlp/linear"][layer], exact.astype(dtype))


@pytest.mark.parametrize("name", ["out.npz", "out"])
@pytest.mark.parametrize("later", ["later.npz", "later"])
def test_an_adapter_is_not_merged_twice_nor_after_a_conversion(tmp_path, base, name, later):
    birds, arrays = adapter(tmp_path)
    dogs, _ = adapter(tmp_path, "dogs", seed=1)
    merged(base, [(birds, 1.0)], tmp_path / name)
    convert(tmp_path / name, tmp_path / later)
    with pytest.raises(ValueError, match="has been merged into .* already"):
        combine(tmp_path / later, [(dogs, 1.0), (birds, 0.5)])
    record = merged_adapters(combine(tmp_path / later, [(dogs, 1.0)]).metadata)
    first, second = record
    assert first.fingerprint == adapters.fingerprint(arrays) != second.fingerprint


def test_what_cannot_be_merged_is_told(tmp_path, base):
    birds, _ = adapter(tmp_path)
    with pytest.raises(ValueError, match="is given twice"):
        combine(base, [(birds, 0.5), (birds, 0.5)])
    with pytest.raises(ValueError, match="is an adapter. Its base model comes first"):
        combine(birds, [(birds, 1.0)])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        combine(tmp_path / "nowhere", [(birds, 1.0)])
    with pytest.raises(ValueError, match="weight=nan, expected a finite number"):
        combine(base, [(birds, float("nan"))])
    with pytest.raises(ValueError, match="no adapter is given"):
        combine(base, [])
    (tmp_path / "out.npz").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        merge(base, combine(base, [(birds, 1.0)]), tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"mine"


def test_a_quantised_base_is_refused(tmp_path):
    birds, _ = adapter(tmp_path)
    folder = huggingface.export(PARAMS, CONFIG, tmp_path / "model")
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="a merge needs plain ones"):
        combine(folder, [(birds, 1.0)])


def test_a_folder_holds_the_tokenizer(tmp_path, base):
    birds, _ = adapter(tmp_path)
    data = tiny_tokenizer().serialized()
    merge(base, combine(base, [(birds, 1.0)]), tmp_path / "out", tokenizer=data)
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == data


def test_numpy_reads_a_file_with_a_record(tmp_path, base):
    birds, arrays = adapter(tmp_path, targets=["projector"])
    merged(base, [(birds, 1.0)], tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as file:
        found = file["params/img/head/kernel"]
    np.testing.assert_allclose(
        found, changed(FLAT["img/head/kernel"], layer_of(arrays, "img/projector", 0)), atol=1e-6
    )


@pytest.mark.parametrize("text", ["", "[", "{}", "[3]", '[{"sha256": 1, "weight": 1}]', "null",
                                  '[{"sha256": "a", "weight": 1e400}]'])  # fmt: skip
def test_a_record_that_is_malformed_is_none(text):
    assert merged_adapters({"merged_adapters": text}) == []


def test_other_metadata_is_kept(tmp_path):
    save_params(tmp_path / "a.npz", PARAMS, metadata={"made by": "me"})
    convert(tmp_path / "a.npz", tmp_path / "b")
    assert metadata_of(tmp_path / "b") == {"made by": "me"}
