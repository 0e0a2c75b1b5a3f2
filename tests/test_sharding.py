"""Meshes, rules for parameters, and batches on their way to devices."""

import json
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from paligemma_lib import model, sharding
from paligemma_lib.model import variants
from paligemma_lib.model.adapter_params import LowRank, abstract_adapters
from paligemma_lib.parameter_roles import ROLES

MODELS = [variants.paligemma_3b, variants.paligemma2_3b, variants.paligemma2_28b, variants.nano]


def names_and_shapes(config):
    leaves = jax.tree_util.tree_leaves_with_path(model.abstract_params(config))
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf.shape)
        for path, leaf in leaves
    ]


@pytest.mark.parametrize("layout", ["fsdp", "tensor"])
@pytest.mark.parametrize("make", MODELS)
def test_split_parameters_are_nearly_all(make, layout):
    sizes = {True: 0, False: 0}
    for name, shape in names_and_shapes(make()):
        spec = sharding.param_spec(name, shape, 4, layout)
        sizes[spec != PartitionSpec()] += math.prod(shape)
    assert sizes[False] < (0.005 if layout == "fsdp" else 0.1) * sizes[True]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("parts", [2, 8, 256])
def test_a_split_axis_is_divisible_and_never_the_layers(make, parts):
    for name, shape in names_and_shapes(make()):
        for layout in ("fsdp", "tensor"):
            spec = sharding.param_spec(name, shape, parts, layout)
            split = [axis for axis, part in enumerate(spec) if part]
            assert len(split) <= 1
            assert all(shape[axis] % parts == 0 for axis in split), name
            assert 0 not in split or not re.match("llm/layers|img/Transformer/encoderb", name)


def test_the_embedding_is_split_on_256_devices():
    assert sharding.param_spec("llm/embedder/input_embedding", (257_152, 2048), 256, "fsdp")


def test_every_rule_is_needed():
    names = {name for make in MODELS for name, _ in names_and_shapes(make())}
    shapes = abstract_adapters(model.abstract_params(MODELS[0]()), LowRank(2, dora=True))
    for role in ROLES:
        assert any(re.fullmatch(role.pattern, name) for name in [*names, *shapes]), role


def test_an_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="0 rules match the parameter llm/lora/a"):
        sharding.param_shardings(sharding.make_mesh(), {"llm": {"lora": {"a": np.zeros(3)}}})


def test_shapes_of_meshes(run_on_devices):
    result = run_on_devices(
        8,
        """
        import json
        from paligemma_lib import sharding
        shapes = [sharding.make_mesh(fsdp).devices.shape for fsdp in (None, 1, 2, 8)]
        try:
            sharding.make_mesh(3)
        except ValueError as error:
            shapes.append(str(error))
        print(json.dumps(shapes))
        """,
    )
    *shapes, error = json.loads(result)
    assert shapes == [[1, 8], [8, 1], [4, 2], [1, 8]]
    assert "fsdp=3 does not divide the 8 devices" in error


def test_rows_of_a_batch_lie_in_order_and_text_stays(run_on_devices):
    result = run_on_devices(
        4,
        """
        import json
        import numpy as np
        from paligemma_lib import sharding
        mesh = sharding.make_mesh(2)
        batch = {"text": np.arange(8)[:, None], "image_id": np.array(list("abcdefgh"))}
        arrays = sharding.put_batch(mesh, batch)
        rows = [shard.data.ravel().tolist() for shard in arrays["text"].addressable_shards]
        try:
            sharding.put_batch(mesh, {"text": np.arange(6)})
        except ValueError as error:
            print(json.dumps([sorted(arrays), rows, str(error)]))
        """,
    )
    keys, rows, error = json.loads(result)
    assert keys == ["text"]
    assert rows == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert "text has 6 examples, which 4 devices cannot share evenly" in error


def test_another_layout_has_the_same_values_and_pieces(run_on_devices):
    run_on_devices(
        4,
        """
        import jax, numpy as np
        from paligemma_lib import model, sharding
        from paligemma_lib.model import variants
        mesh = sharding.make_mesh(fsdp=2)
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
            model.abstract_params(variants.nano()),
        )
        params = jax.device_put(params, sharding.param_shardings(mesh, params))
        wanted = sharding.param_shardings(mesh, params, "tensor")
        for tree in (params, wanted):  # one of them in parts
            query = tree["llm"]["layers"]["attn"]["q_einsum"]
            query["w"] = (query["w"][:3], query["w"][3:]) if tree is params else (query["w"],) * 2
        moved = sharding.resharded(params, "tensor")
        jax.tree.map(np.testing.assert_array_equal, params, moved)
        for leaf, want in zip(jax.tree.leaves(moved), jax.tree.leaves(wanted), strict=True):
            assert leaf.sharding.is_equivalent_to(want, leaf.ndim), (leaf.sharding, want)
        """,
    )


def test_what_lies_on_no_mesh_stays():
    table = np.zeros((8, 4), np.float32)
    (found,) = jax.tree.leaves(sharding.resharded({"img": {"pos_embedding": table}}, "tensor"))
    assert found is table


def test_values_of_another_range_do_not_reach_a_device():
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    for wrong in (image, image.astype(jax.numpy.bfloat16)):
        with pytest.raises(ValueError, match="put_batch: images have values .* expected -1 to 1"):
            sharding.put_batch(mesh, {"image": wrong})
    text = np.array([[5, 6], [7, -100]], np.int32)
    with pytest.raises(ValueError, match="put_batch: text has the id -100 in example 1, position "):
        sharding.put_batch(mesh, {"text": text})
    fine = {"image": image / 127.5 - 1, "text": abs(text), "segment": text, "weight": 9 * image}
    assert sharding.put_batch(mesh, fine).keys() == fine.keys()
    assert sharding.put_batch(mesh, {"image": image.astype(np.uint8)})


@pytest.mark.parametrize("fsdp", [0, -1, True, 1.0, "1"])
def test_a_mesh_is_split_by_a_whole_number(fsdp):
    with pytest.raises(ValueError, match=rf"make_mesh: fsdp={fsdp!r} does not divide the 1 "):
        sharding.make_mesh(fsdp, jax.devices()[:1])
