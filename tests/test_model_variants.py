"""Published sizes, and what the configurations refuse."""

import dataclasses
import json

import jax
import model_cases as cases
import pytest

from paligemma_lib import model
from paligemma_lib.model.variants import (
    GemmaConfig,
    PaliGemmaConfig,
    SiglipConfig,
    nano,
    paligemma2_3b,
    paligemma2_10b,
    paligemma2_28b,
    paligemma_3b,
)

PUBLISHED = {
    "paligemma-3b-224": (paligemma_3b(), 2_923_335_408),
    "paligemma-3b-448": (paligemma_3b(448), 2_924_220_144),
    "paligemma-3b-896": (paligemma_3b(896), 2_927_759_088),
    "paligemma2-3b-224": (paligemma2_3b(), 3_032_094_960),
    "paligemma2-10b-224": (paligemma2_10b(), 9_662_409_456),
    "paligemma2-28b-224": (paligemma2_28b(), 27_650_192_112),
}
SMALL = {"width": 8, "depth": 1, "mlp_dim": 8, "num_heads": 4, "num_kv_heads": 1, "head_dim": 2}


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_of_parameters(name):
    config, expected = PUBLISHED[name]
    leaves = jax.tree.leaves(model.abstract_params(config))
    assert sum(leaf.size for leaf in leaves) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_references(shared, name):
    expected = json.loads((shared / "facts" / "param_shapes.json").read_text())[name]["shapes"]
    params = cases.flatten(model.abstract_params(PUBLISHED[name][0]))
    assert {name: list(leaf.shape) for name, leaf in params.items()} == expected


def test_nano_is_small_and_has_the_same_names():
    params = cases.flatten(model.abstract_params(nano()))
    assert params.keys() == cases.flatten(model.abstract_params(paligemma_3b())).keys()
    assert 2_000_000 < sum(leaf.size for leaf in params.values()) < 5_000_000


def test_settings_of_paligemma_2_28b():
    language = paligemma2_28b().language
    assert language.query_scale == pytest.approx(144**-0.5)
    assert (language.attention_softcap, language.final_softcap) == (50.0, None)
    assert language.post_norms


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: paligemma_3b(225), r"image_size=225 must be a multiple of patch_size=14.*224"),
        (lambda: paligemma_3b(0), "image_size=0, expected a positive number"),
        (lambda: paligemma_3b(224.0), "image_size=224.0, expected a whole number"),
        (lambda: paligemma_3b(True), "image_size=True, expected a positive number"),
        (lambda: paligemma_3b("224"), "image_size='224', expected a positive number"),
        (lambda: SiglipConfig(224, num_heads=7), "width=1152 must be a multiple of num_heads=7"),
        (lambda: GemmaConfig(**{**SMALL, "num_kv_heads": 3}), "num_heads=4 must be a multiple"),
        (lambda: GemmaConfig(**{**SMALL, "num_kv_heads": 4}), "use fewer key/value heads"),
        (lambda: GemmaConfig(**{**SMALL, "head_dim": 3}), "head_dim=3 must be even"),
        (lambda: GemmaConfig(**SMALL, attention_softcap=-1.0), "attention_softcap=-1.0"),
        (lambda: dataclasses.replace(nano(), dtype="int8"), "dtype='int8', expected one of"),
        (lambda: dataclasses.replace(nano(), remat="all"), "remat='all', expected one of"),
    ],
)
def test_bad_settings_say_what_and_how(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_configuration_is_a_key():
    assert hash(nano()) == hash(nano()) and nano() == nano()
    assert PaliGemmaConfig(nano().vision, paligemma_3b().language) != nano()
