"""The reference implementation and ours on the same parameters, where a checkout is at hand."""

import jax
import model_cases as cases
import numpy as np
import pytest

REASON = "needs a big_vision checkout on PYTHONPATH, with what it imports"


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_same_parameters_give_the_same_logits(version, monkeypatch):
    reference = pytest.importorskip("big_vision.models.proj.paligemma.paligemma", reason=REASON)
    from big_vision.models.ppp import gemma
    from ml_collections import ConfigDict

    config = cases.tiny_config(version)
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
    theirs = reference.Model(
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

    params, batch = cases.random_params(config), cases.packed_batch(config)
    several = batch["segment"] > 1  # big_vision knows one suffix per image
    batch = {name: value.copy() for name, value in batch.items()}
    for name, empty in (("text", 0), ("segment", -1), ("position", 0)):
        batch[name][several] = empty
    mask_ar = (batch["segment"] > 0).astype(np.int32)
    expected, _ = jax.jit(theirs.apply)({"params": params}, batch["image"], batch["text"], mask_ar)
    got = np.asarray(cases.all_logits(config, params, batch))
    # Where something is predicted from; its last slots look at padding, ours do not.
    supervised = batch["segment"][:, 1:] == 1
    np.testing.assert_allclose(got[:, :-1][supervised], expected[:, :-1][supervised], atol=2e-5)
