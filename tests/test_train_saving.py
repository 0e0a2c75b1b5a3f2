"""Checkpoints of training: what comes back, what is kept, what is refused."""

import jax
import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import sharding
from paligemma_lib.train import Checkpoints, fingerprint, init_state, make_optimizer, restage
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])
TOP = Select("attention", top_layers=2)
RUN = {"seed": 3, "optimizer": {"name": "adamw", "stages": (1, 2)}}


def state_of(name="adamw", seed=0, step=0, what=TOP):
    optimizer = make_optimizer(name, learning_rate=0.1, total_steps=9)
    params = jax.device_put(cases.random_params(CONFIG, seed), sharding.replicated(MESH))
    state = init_state(CONFIG, params, optimizer, trainable=what, mesh=MESH)
    state = restage(state, optimizer, [what, "projector"])
    shift = jax.tree.map(lambda x: x + (step + 1), state)  # nothing stays at its start
    return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(shift))


def at_step(state, step):
    object.__setattr__(state, "step", state.step * 0 + step)
    return state


@pytest.mark.parametrize("name", ["sgd", "adamw", "adafactor"])
def test_a_state_comes_back_bit_for_bit(tmp_path, name):
    saved = at_step(state_of(name, step=7), 7)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(saved, RUN)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 7
        checkpoints.check(7, RUN)
        fresh = state_of(name, seed=1)
        restored = checkpoints.restore(7, fresh)
    for part in ("trained", "opt_state", "step", "loss_scale", "skipped", "good_steps"):
        old, new = getattr(saved, part), getattr(restored, part)
        assert jax.tree.structure(old) == jax.tree.structure(new)
        jax.tree.map(np.testing.assert_array_equal, new, old)
    assert restored.frozen is fresh.frozen


def test_the_newest_and_the_best_are_kept(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: None}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, validation_loss in losses.items():
            checkpoints.save(at_step(state_of(), step), RUN, validation_loss)
    kept = sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    assert kept == [2, 4, 5]


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.latest() is None


def test_another_configuration_is_refused_unless_it_may_differ(tmp_path):
    other = {"seed": 4, "optimizer": {"name": "adamw", "stages": (1, 2)}, "extra": None}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 2), RUN)
        with pytest.raises(ValueError, match=r"seed: was 3, is 4") as error:
            checkpoints.check(2, other)
        assert "stages" not in str(error.value)
        checkpoints.check(2, other, may_differ=["seed"])


def test_other_parameters_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 2), RUN)
        with pytest.raises(ValueError, match="step 2: it does not hold what trains now"):
            checkpoints.restore(2, state_of(what="attention"))


def test_a_half_written_checkpoint_is_not_found(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at_step(state_of(), step), RUN)
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp-123")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
        checkpoints.restore(1, state_of())


def test_a_fingerprint_tells_parameters_apart():
    params = cases.random_params(CONFIG)
    found = {fingerprint(params), fingerprint(jax.device_put(params, sharding.replicated(MESH)))}
    assert len(found) == 1
    kernel = params["img"]["embedding"]["kernel"]
    kernel[..., [0, 1]] = kernel[..., [1, 0]]  # same numbers in other places
    found.add(fingerprint(params))
    params["llm"]["final_norm"]["scale"][-1] = np.nextafter(
        params["llm"]["final_norm"]["scale"][-1], 9
    )
    found.add(fingerprint(params))
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), params)
    found |= {fingerprint(half), fingerprint({"img": half["img"]})}
    assert len(found) == 5
