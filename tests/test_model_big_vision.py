"""The reference implementation and ours on the same parameters, where a checkout is at hand."""

import dataclasses

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import checkpoint, sharding, train
from paligemma_lib.testing import tiny_batch, tiny_tokenizer

REASON = "needs a big_vision checkout on PYTHONPATH, with what it imports"


@pytest.fixture(params=cases.VERSIONS)
def version(request):
    return request.param


@pytest.fixture(params=[32, 448, 896])
def config(request, version):
    """The tiny sizes, at those of images that PaliGemma has, too."""
    config = cases.tiny_config(version)
    size, patch = request.param, config.vision.patch_size if request.param == 32 else 14
    vision = dataclasses.replace(config.vision, image_size=size, patch_size=patch)
    return dataclasses.replace(config, vision=vision)


@pytest.fixture
def theirs(config, monkeypatch):
    """The reference's model of these sizes."""
    reference = pytest.importorskip("big_vision.models.proj.paligemma.paligemma", reason=REASON)
    from big_vision.models.ppp import gemma
    from ml_collections import ConfigDict

    vision, language = config.vision, config.language
    sizes = {
        "variant": "tiny",
        "norm_eps": 1e-6,
        "attn_logits_softcap": language.attention_softcap or 0.0,
        **{
            name: getattr(language, name)
            for name in (
                "width",
                "depth",
                "mlp_dim",
                "num_heads",
                "num_kv_heads",
                "head_dim",
                "vocab_size",
                "post_norms",
            )
        },
    }
    monkeypatch.setattr(gemma, "get_config", lambda variant: ConfigDict(sizes))
    return reference.Model(
        llm={"variant": "tiny"},
        img={
            "patch_size": (vision.patch_size, vision.patch_size),
            "width": vision.width,
            "depth": vision.depth,
            "mlp_dim": vision.mlp_dim,
            "num_heads": vision.num_heads,
            "pool_type": "none",
            "scan": True,
        },
    )


def assert_same_logits(config, theirs, their_params, params):
    rows = 4 if config.vision.num_tokens < 1000 else 1
    batch = {name: part[:rows] for name, part in cases.packed_batch(config).items()}
    several = batch["segment"] > 1  # big_vision knows one suffix per image
    batch = {name: value.copy() for name, value in batch.items()}
    for name, empty in (("text", 0), ("segment", -1), ("position", 0)):
        batch[name][several] = empty
    mask_ar = (batch["segment"] > 0).astype(np.int32)
    run = jax.jit(theirs.apply)
    expected, _ = run({"params": their_params}, batch["image"], batch["text"], mask_ar)
    got = np.asarray(cases.all_logits(config, params, batch))
    # Where something is predicted from; its last slots look at padding, ours do not.
    supervised = batch["segment"][:, 1:] == 1
    np.testing.assert_allclose(got[:, :-1][supervised], expected[:, :-1][supervised], atol=2e-5)


def test_same_parameters_give_the_same_logits(config, theirs):
    params = cases.random_params(config)
    assert_same_logits(config, theirs, params, params)


@pytest.mark.parametrize("config", [32], indirect=True)
def test_what_our_steps_have_trained_loads_there(config, theirs, tmp_path):
    from big_vision import utils

    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    params = jax.device_put(cases.random_params(config), sharding.replicated(mesh))
    optimizer = train.make_optimizer("sgd", learning_rate=0.1, total_steps=2)
    state = train.init_state(config, params, optimizer, trainable="attention", mesh=mesh)
    step = train.make_train_step(config, optimizer, mesh=mesh)
    for seed in range(2):
        state, _ = step(state, tiny_batch(tiny_tokenizer(), batch_size=4, captions=2, seed=seed))
    path = tmp_path / "trained.npz"
    checkpoint.save_params(path, state.all_params())
    loaded = utils.load_params(str(path))
    assert_same_logits(config, theirs, loaded, state.all_params())
