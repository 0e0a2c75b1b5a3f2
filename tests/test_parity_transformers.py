"""Our model and transformers' PyTorch model compute the same, in both directions of conversion.

What transformers 5.23 does, as its source says and these tests hold it to:
- Positions count from 1 over image and text together (ours from 0). RoPE sees differences alone.
- `token_type_ids` 0 marks the prefix with the image, 1 the suffix: the mask is causal, or-ed with
  "both are of the prefix"; without them all of the prompt is causal in a plain forward pass.
- `attention_mask` removes padding; `<image>` slots are overwritten by image features, unscaled.
"""

import dataclasses

import jax
import model_cases as cases
import numpy as np
import pytest
from transformers_cases import (
    batch_of_pairs,
    opened_by_transformers,
    their_inputs,
    their_logits,
    torch,
    transformers,
)

from paligemma_lib.checkpoint import huggingface, load_params, read_config

TOLERANCE = 1e-4


def largest_difference(config, params, their_model, rows=4):
    """Largest absolute difference of logits, relative to nothing, over slots with a token."""
    batch = {name: part[:rows] for name, part in batch_of_pairs(config).items()}
    theirs = their_logits(their_model, config, batch)
    ours = np.asarray(cases.all_logits(config, params, batch))
    there = batch["segment"] >= 0
    assert np.abs(theirs[there]).max() > 1  # not trivially small
    return np.abs(ours - theirs)[there].max()


def their_config(config, **language_options):
    """The same model, as a user of transformers would set it up; no setting of our export."""
    vision, language = config.vision, config.language
    sizes = {
        "vocab_size": language.vocab_size + 64,
        "hidden_size": language.width,
        "intermediate_size": language.mlp_dim,
        "num_hidden_layers": language.depth,
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_kv_heads,
        "head_dim": language.head_dim,
    }
    kind = transformers.Gemma2Config if language.post_norms else transformers.GemmaConfig
    return transformers.PaliGemmaConfig(
        text_config=kind(**sizes, **language_options),
        vision_config=transformers.SiglipVisionConfig(
            hidden_size=vision.width,
            intermediate_size=vision.mlp_dim,
            num_hidden_layers=vision.depth,
            num_attention_heads=vision.num_heads,
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            vision_use_head=False,
        ),
        image_token_index=language.vocab_size,
        projection_dim=language.width,
        hidden_size=language.width,
    )


GEMMA2 = {
    "final_logit_softcapping": None,
    "layer_types": ["full_attention"] * 3,
    "query_pre_attn_scalar": 16,
}


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_our_export_computes_the_same_logits_there(tmp_path, version):
    config = cases.tiny_config(version)
    params = cases.random_params(config)
    huggingface.export(params, config, tmp_path / "model")
    their_model = opened_by_transformers(tmp_path / "model")
    assert their_model.dtype == torch.float32
    assert largest_difference(config, params, their_model) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("size", [448, 896])
@pytest.mark.parametrize("version", cases.VERSIONS)
def test_large_images_give_the_same_logits_there(tmp_path, version, size):
    """Attention takes a few rows at a time here, and all of them there."""
    config = cases.tiny_config(version)
    vision = dataclasses.replace(config.vision, image_size=size, patch_size=14)
    config = dataclasses.replace(config, vision=vision)
    params = cases.random_params(config)
    huggingface.export(params, config, tmp_path / "model")
    their_model = opened_by_transformers(tmp_path / "model")
    assert largest_difference(config, params, their_model, rows=1) < TOLERANCE


def saved_by_transformers(folder, settings):
    """A random model of these settings, and its folder."""
    torch.manual_seed(0)
    their_model = transformers.PaliGemmaForConditionalGeneration(settings)
    with torch.no_grad():
        for parameter in their_model.parameters():  # none neutral, as norms are at first
            parameter.add_(0.12 * torch.randn_like(parameter))
    their_model.save_pretrained(folder)
    return their_model


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_their_model_computes_the_same_logits_here(tmp_path, version):
    config = cases.tiny_config(version)
    settings = their_config(config, **(GEMMA2 if version == 2 else {}))
    their_model = saved_by_transformers(tmp_path / "model", settings)
    assert read_config(tmp_path / "model") == config
    params = load_params(tmp_path / "model", config)
    assert largest_difference(config, params, their_model) < TOLERANCE


def test_the_defaults_of_gemma2_are_taken_over(tmp_path):
    """A soft cap of 30 on the final logits, queries scaled by 1 / 16, windows of 4096 tokens."""
    their_model = saved_by_transformers(tmp_path / "model", their_config(cases.tiny_config(2)))
    config = read_config(tmp_path / "model")
    assert (config.language.final_softcap, config.language.query_scale) == (30.0, 1 / 16)
    params = load_params(tmp_path / "model", config)
    assert largest_difference(config, params, their_model) < TOLERANCE


def test_every_setting_of_gemma2_arrives(tmp_path):
    config = cases.tiny_config(2)
    language = dataclasses.replace(config.language, query_scale=0.5, final_softcap=7.0)
    config = dataclasses.replace(config, language=language)
    params = cases.random_params(config)
    huggingface.export(params, config, tmp_path / "model")
    their_model = opened_by_transformers(tmp_path / "model")
    assert largest_difference(config, params, their_model) < TOLERANCE


def test_no_layer_has_a_window(tmp_path):
    """By default every other layer has one, of 4096 tokens; with 4 it would show here."""
    config = cases.tiny_config(2)
    params = cases.random_params(config)
    huggingface.export(params, config, tmp_path / "model")
    settings = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    settings.text_config.sliding_window = 4
    their_model = opened_by_transformers(tmp_path / "model", config=settings)
    assert largest_difference(config, params, their_model) < TOLERANCE
    settings.text_config.layer_types[1] = "sliding_attention"
    their_model = opened_by_transformers(tmp_path / "model", config=settings)
    assert largest_difference(config, params, their_model) > 100 * TOLERANCE


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_golden_parameters_give_the_golden_logits_there(tmp_path, shared, version):
    config = cases.tiny_config(version)
    params, batch, golden = cases.golden(shared, version)
    huggingface.export(params, config, tmp_path / "model")
    theirs = their_logits(opened_by_transformers(tmp_path / "model"), config, batch)
    supervised = golden["batch/mask_loss"][:, 1:] == 1
    assert np.abs(theirs[:, :-1] - golden["logits"])[supervised].max() < TOLERANCE


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_bfloat16_opens_as_bfloat16(tmp_path, version):
    """Both compute in float32 from the same rounded weights."""
    config = cases.tiny_config(version)
    params = jax.tree.map(lambda x: x.astype("bfloat16"), cases.random_params(config))
    huggingface.export(params, config, tmp_path / "model")
    assert opened_by_transformers(tmp_path / "model").dtype == torch.bfloat16
    their_model = opened_by_transformers(tmp_path / "model", dtype=torch.float32)
    assert largest_difference(config, params, their_model) < TOLERANCE


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_several_files_open(tmp_path, version, monkeypatch):
    monkeypatch.setattr(huggingface.writer, "MAX_FILE_BYTES", 200_000)
    config = cases.tiny_config(version)
    params = cases.random_params(config)
    huggingface.export(params, config, tmp_path / "model")
    assert (
        largest_difference(config, params, opened_by_transformers(tmp_path / "model")) < TOLERANCE
    )


@pytest.mark.parametrize("version", cases.VERSIONS)
def test_greedy_generation_agrees(tmp_path, version):
    """`generate` builds masks and positions its own way, with a cache."""
    config = cases.tiny_config(version)
    params = cases.random_params(config)
    huggingface.export(params, config, tmp_path / "model")
    their_model = opened_by_transformers(tmp_path / "model").eval()
    prefix, last = 4, 10
    batch = {k: v[[0, 2]] for k, v in batch_of_pairs(config).items()}  # prefixes of 4 and more
    batch["segment"][:, :prefix], batch["segment"][:, prefix:] = 0, -1
    batch["position"][:] = np.arange(batch["text"].shape[1])
    prompt = {k: v if k == "image" else v[:, :prefix] for k, v in batch.items()}
    theirs = their_model.generate(
        **their_inputs(config, prompt),
        max_new_tokens=last - prefix,
        min_new_tokens=last - prefix,
        do_sample=False,
    )[:, config.vision.num_tokens :].numpy()
    for slot in range(prefix, last):
        scores = np.array(cases.all_logits(config, params, batch))[:, slot - 1]
        scores[:, 1] = -np.inf  # it must not end yet
        batch["text"][:, slot] = scores.argmax(axis=-1)
        batch["segment"][:, slot] = 1
    np.testing.assert_array_equal(theirs, batch["text"][:, :last])
