"""The configuration of a checkpoint, from arrays' shapes and from config.json."""

import contextlib
import dataclasses
import json
import re

import model_cases as cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paligemma_lib import model
from paligemma_lib.checkpoint import read_config, save_params
from paligemma_lib.checkpoint.configuration import (
    MODELS,
    config_of_shapes,
    differing_fields,
    published_name,
)
from paligemma_lib.checkpoint.huggingface import settings
from paligemma_lib.checkpoint.huggingface.config_json import read_config_json
from paligemma_lib.checkpoint.matching import expected_shapes

PUBLISHED = [
    *(make(size) for name, make in MODELS.items() if "gemma" in name for size in (224, 448)),
    model.variants.paligemma_3b(896),
    model.variants.nano(),
    model.variants.nano(48),
    model.variants.scratch(),
]
TINY = [cases.tiny_config(version) for version in cases.VERSIONS]


@pytest.mark.parametrize("config", PUBLISHED + TINY)
def test_shapes_tell_the_configuration(config):
    assert config_of_shapes(expected_shapes(config)) == config


def test_the_references_shapes_tell_the_published_configuration(shared):
    facts = json.loads((shared / "facts" / "param_shapes.json").read_text())
    for name, fact in facts.items():
        shapes = {key: tuple(shape) for key, shape in fact["shapes"].items()}
        family, size, *_ = re.fullmatch(r"(paligemma2?-\d+b).*-(\d+)", name).groups()
        want = MODELS[family.replace("-", "_")](int(size))
        assert config_of_shapes(shapes) == want, name


@pytest.mark.parametrize("config", PUBLISHED)
def test_published_models_have_names(config):
    make = MODELS[published_name(config)]
    assert make(config.vision.image_size) == config


def test_other_models_have_none():
    assert published_name(TINY[0]) is None
    wide = dataclasses.replace(model.variants.nano().language, mlp_dim=770)
    assert published_name(dataclasses.replace(model.variants.nano(), language=wide)) is None


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_an_npz_file_tells_its_configuration(tmp_path, version):
    path = tmp_path / "params.npz"
    save_params(path, cases.random_params(TINY[version - 1]))
    assert read_config(path) == TINY[version - 1]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("img/embedding/kernel", None, "img/embedding/kernel is missing"),
        ("llm/layers/attn/q_einsum/w", (3, 4, 64), r"q_einsum/w has shape \[3, 4, 64\], expected"),
        ("img/pos_embedding", (1, 15, 48), r"\[1, 15, 48\], expected a square grid of patches"),
        ("llm/layers/attn/kv_einsum/w", (3, 2, 3, 64, 16), "num_heads=4 must be a multiple of num"),
        ("img/embedding/kernel", (0, 0, 3, 48), "kernel.npy has the shape .*, which holds no"),
    ],
)
def test_shapes_that_tell_nothing_are_an_error(tmp_path, name, shape, message):
    arrays = cases.flatten(cases.random_params(TINY[0]))
    del arrays[name]
    if shape:
        arrays[name] = np.zeros(shape, np.float32)
    path = tmp_path / "params.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        read_config(path)


def test_differing_fields_are_those_that_make_the_model():
    config = model.variants.paligemma2_3b()
    language = dataclasses.replace(config.language, query_scale=256**-0.5, final_softcap=30.0)
    other = dataclasses.replace(
        model.variants.paligemma2_3b(448), language=language, dtype="float16"
    )
    assert differing_fields(config, other) == {"language.final_softcap": 30.0}


# --- config.json


def written(folder, content):
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def with_language(config, **changes):
    return dataclasses.replace(config, language=dataclasses.replace(config.language, **changes))


@pytest.mark.parametrize(
    "config",
    [
        *PUBLISHED,
        *TINY,
        with_language(TINY[1], query_scale=0.5, final_softcap=7.0),
        with_language(TINY[1], attention_softcap=None),
    ],
)
def test_what_an_export_says_is_read_back(tmp_path, config):
    content = settings.model_settings(config, "bfloat16")
    assert read_config_json(written(tmp_path, content)) == config


# As the files on the Hub are: what equals a default is left out.
HUB_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "num_image_tokens": 256,
    "patch_size": 14,
    "projector_hidden_act": "gelu_fast",
    "vision_use_head": False,
}
HUB_1 = {
    "image_token_index": 257152,
    "model_type": "paligemma",
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "model_type": "gemma",
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "vocab_size": 257216,
    },
    "vision_config": HUB_VISION,
}
HUB_2 = {
    **HUB_1,
    "text_config": {
        "model_type": "gemma2",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "vocab_size": 257216,
    },
}


def test_published_files_are_read(tmp_path):
    assert read_config_json(written(tmp_path, HUB_1)) == model.variants.paligemma_3b()
    want = with_language(model.variants.paligemma2_3b(), final_softcap=30.0)
    assert read_config_json(written(tmp_path, HUB_2)) == want
    assert read_config(tmp_path) == want


def changed(content, section, **changes):
    if not section:
        return {**content, **changes}
    return {**content, section: {**content[section], **changes}}


TEXT, VISION = "text_config", "vision_config"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(HUB_1, "", model_type="llava"), "model_type is 'llava', expected 'paligemma'"),
        (changed(HUB_1, "", text_config=None), "text_config is not a JSON object"),
        (changed(HUB_1, TEXT, model_type="llama"), "text_config.model_type is 'llama'"),
        (changed(HUB_1, VISION, model_type=["a"]), r"vision_config.model_type is \['a'\]"),
        (changed(HUB_1, "", tie_word_embeddings=False), "tie_word_embeddings is False"),
        (changed(HUB_1, TEXT, tie_word_embeddings=False), "text_config.tie_word_embeddings"),
        (changed(HUB_1, TEXT, hidden_act="silu"), "hidden_act is 'silu', expected 'gelu_pytorch"),
        (changed(HUB_2, TEXT, hidden_activation="gelu"), "hidden_activation is 'gelu'"),
        (changed(HUB_1, VISION, hidden_act="gelu"), "vision_config.hidden_act is 'gelu'"),
        (changed(HUB_1, TEXT, rms_norm_eps=1e-5), "rms_norm_eps is 1e-05, expected 1e-06"),
        (changed(HUB_1, VISION, layer_norm_eps=1e-5), "layer_norm_eps is 1e-05"),
        (changed(HUB_1, TEXT, rope_theta=1e6), "rope_theta is 1000000.0, expected 10000.0"),
        (changed(HUB_1, TEXT, rope_parameters={"rope_type": "yarn"}), "rope_parameters is"),
        (changed(HUB_1, TEXT, attention_bias=True), "attention_bias is True"),
        (changed(HUB_1, TEXT, use_bidirectional_attention=False), "use_bidirectional_attention"),
        (changed(HUB_2, TEXT, sliding_window=255), "sliding_window is 255, less than the 256"),
        (changed(HUB_2, TEXT, final_logit_softcapping="30"), "final_logit_softcapping is '30'"),
        (changed(HUB_2, TEXT, query_pre_attn_scalar=-1), "query_pre_attn_scalar is -1"),
        (changed(HUB_1, TEXT, hidden_size=2048.0), "hidden_size is 2048.0, expected a whole"),
        (changed(HUB_1, TEXT, hidden_size=True), "hidden_size is True, expected a whole"),
        (changed(HUB_1, TEXT, num_hidden_layers=1001), "num_hidden_layers is more than 1,000"),
        (changed(HUB_1, TEXT, num_hidden_layers=10**9), "expected a whole number from 1 to 1,048"),
        (
            changed(HUB_1, TEXT, vocab_size=257280),
            "vocab_size is 257280, expected image_token_index=257",
        ),
        (changed(HUB_1, VISION, image_size=[224, 224]), "image_size is .*expected a whole"),
        (changed(HUB_1, VISION, image_size=225), "image_size=225 must be a multiple of patch_size"),
        ("[]", "it is not a JSON object"),
        ("{", "does not describe a supported model: Expecting"),
        ("[" * 100_000, "does not describe a supported model"),
    ],
)
def test_what_is_not_computed_here_is_an_error(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read_config_json(path)
    assert str(caught.value).startswith(f"{path} does not describe a supported model: ")


def test_windows_that_hold_the_image_are_none(tmp_path):
    full = ["full_attention"] * 26
    content = changed(HUB_2, TEXT, sliding_window=4, layer_types=full)
    read_config_json(written(tmp_path, content))
    read_config_json(written(tmp_path, changed(HUB_2, TEXT, sliding_window=None)))
    read_config_json(written(tmp_path, changed(HUB_2, TEXT, sliding_window=256)))


def test_no_file_and_a_huge_one_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        read_config(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes, expected at most"):
        read_config(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(JSON, st.sampled_from(["", TEXT, VISION]), st.data())
def test_any_value_anywhere_is_read_or_a_value_error(tmp_path_factory, value, section, data):
    whole = changed(HUB_2, TEXT, **settings.model_settings(TINY[1], "float32")[TEXT])
    name = data.draw(st.sampled_from(sorted(whole[section] if section else whole)))
    path = written(tmp_path_factory.getbasetemp(), changed(whole, section, **{name: value}))
    with contextlib.suppress(ValueError):
        read_config_json(path)
