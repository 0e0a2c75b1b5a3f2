"""Adapters of PEFT and ours are the same: logits both ways, and gradients of all that trains."""

import json
import warnings

import adapter_cases
import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from transformers_cases import (
    batch_of_pairs,
    opened_by_transformers,
    their_inputs,
    their_logits,
    torch,
)

from paligemma_lib.checkpoint import adapters, huggingface
from paligemma_lib.checkpoint.adapters.adapter_folder import ADAPTER_MODEL
from paligemma_lib.checkpoint.adapters.peft_modules import LAYOUTS
from paligemma_lib.checkpoint.adapters.peft_settings import ADAPTER_CONFIG
from paligemma_lib.model.adapter_params import with_adapters

peft = pytest.importorskip(
    "peft", reason="needs transformers and torch, and peft (pip install -e '.[parity]')"
)

TOLERANCE = 1e-4
KINDS = {
    "lora": {"r": 4, "lora_alpha": 8},
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 8, "use_dora": True},
}


@pytest.fixture(scope="module", params=cases.VERSIONS)
def base(request, tmp_path_factory):
    """A tiny model: its configuration, its parameters, and its folder."""
    config = cases.tiny_config(request.param)
    params = cases.random_params(config)
    folder = tmp_path_factory.mktemp("base") / "model"
    huggingface.export(params, config, folder)
    return config, params, folder


def their_adapter(base, **options):
    """A random adapter of PEFT on the base; nothing in it is neutral."""
    model = peft.get_peft_model(opened_by_transformers(base[2]), peft.LoraConfig(**options))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
            elif "lora_" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return model


def logits_differ_by(base, arrays, their_model):
    """Largest difference of logits where a token stands; the adapter makes a larger one."""
    config, params, _ = base
    batch = batch_of_pairs(config)
    there = batch["segment"] >= 0
    ours = np.asarray(cases.all_logits(config, with_adapters(params, arrays), batch))[there]
    plain = np.asarray(cases.all_logits(config, params, batch))[there]
    assert np.abs(ours - plain).max() > 0.1
    return np.abs(ours - their_logits(their_model, config, batch)[there]).max()


def opened_by_peft(base, folder):
    """Opens an adapter, and insists that every tensor found its place."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(opened_by_transformers(base[2]), folder)
    assert not [str(each.message) for each in told if "adapter" in str(each.message)]
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_peft_gives_the_same_logits_here(tmp_path, base, kind):
    model = their_adapter(base, target_modules="all-linear", **KINDS[kind])
    model.save_pretrained(tmp_path)
    assert adapters.base_of(tmp_path) == str(base[2])
    arrays = adapters.read_adapter(tmp_path, base[0])
    assert logits_differ_by(base, arrays, model) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_ours_gives_the_same_logits_there(tmp_path, base, kind):
    arrays = adapter_cases.random_adapters(base[0], dora=kind == "dora")
    adapters.write_adapter(
        tmp_path / "birds", arrays, base="x", config=base[0], rslora=kind == "rslora"
    )
    assert logits_differ_by(base, arrays, opened_by_peft(base, tmp_path / "birds")) < TOLERANCE


SETTINGS = {
    "some layers": {"target_modules": ["q_proj", "fc1"], "layers_to_transform": [1]},
    "one layer": {"target_modules": ["o_proj"], "layers_to_transform": 2,
                  "layers_pattern": "layers"},
    "ranks": {"target_modules": ["q_proj", "v_proj"],
              "rank_pattern": {"v_proj": 2, r"layers\.1\.self_attn\.q_proj": 7}},
    "alphas": {"target_modules": ["q_proj", "up_proj"], "use_rslora": True,
               "alpha_pattern": {"^model.language_model.layers.0.mlp.up_proj": 3, "q_proj": 5}},
    "expression": {"target_modules": r"^(?!.*vision).*\.(gate_proj|linear)"},
    "excluded": {"target_modules": ["q_proj", "linear"], "exclude_modules": r".*vision_tower.*"},
}  # fmt: skip


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_all_kinds_mean_the_same_here(tmp_path, base, name, dora):
    model = their_adapter(base, r=4, use_dora=dora, **SETTINGS[name])
    model.save_pretrained(tmp_path)
    arrays = adapters.read_adapter(tmp_path, base[0])
    assert logits_differ_by(base, arrays, model) < TOLERANCE


@pytest.mark.parametrize("dora", [False, True])
def test_ranks_alphas_and_missing_layers_mean_the_same_there(tmp_path, base, dora):
    arrays = adapter_cases.random_adapters(base[0], ["llm/q_proj"], rank=2, dora=dora)
    arrays |= adapter_cases.random_adapters(base[0], ["vision"], rank=5, scale=0.7, dora=dora)
    arrays |= adapter_cases.random_adapters(base[0], ["mlp"], rank=2, scale=-3.0, dora=dora)
    for array in arrays.values():
        array[1] = 0
    adapters.write_adapter(tmp_path / "birds", arrays, base="x", config=base[0])
    assert logits_differ_by(base, arrays, opened_by_peft(base, tmp_path / "birds")) < TOLERANCE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_peft_opens_each_layout(tmp_path, base, layout):
    """But not the projector by its name of transformers 4.4x, which peft 0.21 does not find."""
    targets = ["llm", "vision"] if layout == "transformers4" else ["all-linear"]
    arrays = adapter_cases.random_adapters(base[0], targets)
    adapters.write_adapter(tmp_path / "birds", arrays, base="x", config=base[0], layout=layout)
    assert logits_differ_by(base, arrays, opened_by_peft(base, tmp_path / "birds")) < TOLERANCE


def older(name):
    """The name that transformers 4.4x had for a tensor of 5."""
    for new, old in zip(LAYOUTS["transformers5"], LAYOUTS["transformers4"], strict=True):
        name = name.replace(f"base_model.model.{new}", f"base_model.model.{old}")
    return name


def test_a_file_of_an_older_version_is_read(tmp_path, base):
    model = their_adapter(base, target_modules="all-linear", **KINDS["dora"])
    model.save_pretrained(tmp_path)
    safetensors = pytest.importorskip("safetensors.numpy")
    stored = safetensors.load_file(tmp_path / ADAPTER_MODEL)
    renamed = {older(name): values for name, values in stored.items()}
    assert not renamed.keys() & stored.keys()
    safetensors.save_file(renamed, tmp_path / ADAPTER_MODEL)
    arrays = adapters.read_adapter(tmp_path, base[0])
    assert logits_differ_by(base, arrays, model) < TOLERANCE


def test_a_merge_there_is_the_merge_here(tmp_path, base):
    arrays = adapter_cases.random_adapters(base[0], dora=True)
    adapters.write_adapter(tmp_path / "birds", arrays, base="x", config=base[0])
    merged = opened_by_peft(base, tmp_path / "birds").merge_and_unload()
    assert logits_differ_by(base, arrays, merged) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same(tmp_path, base, kind):
    config, params, _ = base
    model = their_adapter(base, target_modules="all-linear", **KINDS[kind]).eval()
    model.save_pretrained(tmp_path)
    arrays = adapters.read_adapter(tmp_path, config)
    batch = batch_of_pairs(config)
    weight = cases.loss_weight(batch["segment"])

    def loss(arrays):
        return -jnp.sum(cases.log_likelihood(config, with_adapters(params, arrays), batch) * weight)

    ours = jax.jit(jax.grad(loss))(arrays)
    logits = model(**their_inputs(config, batch)).logits[:, config.vision.num_tokens :]
    scores = torch.log_softmax(logits[:, :-1, : config.language.vocab_size].float(), -1)
    tokens = torch.from_numpy(batch["text"]).long()[:, 1:, None]
    likelihood = scores.gather(-1, tokens)[..., 0] * torch.from_numpy(weight)[:, 1:]
    (-likelihood.sum()).backward()
    # Gradients become an adapter's tensors, so that the reader puts them where they belong.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    model.save_pretrained(tmp_path / "gradients")
    theirs = adapters.read_adapter(tmp_path / "gradients", config)
    for name, values in theirs.items():
        if not name.endswith("/scale"):
            largest = np.abs(values).max()
            assert largest > 1e-3, name
            assert np.abs(ours[name] - values).max() < TOLERANCE * max(1, largest), name


def test_settings_written_by_peft_hold_nothing_unknown(tmp_path, base):
    """A new version with new fields is noticed here."""
    their_adapter(base, target_modules=["q_proj"]).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    from paligemma_lib.checkpoint.adapters.peft_settings import read_settings

    assert read_settings(tmp_path).rank == fields["r"] == 8
