"""What is wrong with a checkpoint: damage is passed over, all else is told and removes nothing."""

import dataclasses
import errno
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from saving_cases import RUN, at_step, cut, flip, largest, state_of, steps_in

from paligemma_lib.train import Checkpoints, saving


def test_a_checkpoint_of_values_that_are_not_finite_is_passed_over(tmp_path, caplog):
    broken = jax.tree.map(lambda x: x * jnp.asarray(jnp.inf, x.dtype), state_of().trained)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 1), RUN)
        checkpoints.save(at_step(dataclasses.replace(state_of(), trained=broken), 2), RUN)
    fresh = state_of(seed=1)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(lambda step: at_step(fresh, step))
    assert int(restored.step) == 1
    assert "is of no use: values are not finite" in caplog.text


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError("no memory"), MemoryError),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), RuntimeError),
        (PermissionError(errno.EACCES, "Permission denied"), OSError),
        (OSError(errno.EMFILE, "Too many open files"), OSError),
    ],
)
def test_what_is_no_damage_removes_nothing(tmp_path, monkeypatch, error, raised):
    monkeypatch.setattr(saving, "retry", lambda function, what: function())
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at_step(state_of(), step), RUN)

    def fail(*args, **kwargs):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", fail)
        with pytest.raises(raised):
            checkpoints.restore(lambda step: at_step(state_of(), step))
    assert steps_in(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda step: flip(largest(step)), "state is damaged (digest mismatch in "),
        (lambda step: cut(largest(step)), "state is damaged ("),
        (lambda step: largest(step).unlink(), "state is damaged ("),
        (lambda step: flip(step / "state" / "manifest.ocdbt"), "state is damaged ("),
        (lambda step: cut(step / "state" / "_METADATA"), "state is damaged ("),
        (lambda step: flip(step / "run" / "metadata"), "run/metadata is damaged ("),
        (lambda step: shutil.rmtree(step / "run"), "run/metadata is damaged ("),
        (lambda step: shutil.rmtree(step / "state"), "state is damaged ("),
        (lambda step: [shutil.rmtree(each) for each in step.iterdir() if each.is_dir()], "damaged"),
        (lambda step: (shutil.rmtree(step), step.mkdir()), "run/metadata is damaged ("),
    ],
)
def test_the_newest_whole_one_is_taken_and_training_goes_on(tmp_path, caplog, damage, told):
    whole = at_step(state_of(seed=3), 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(whole, RUN)
        checkpoints.save(at_step(state_of(), 4), RUN)
    damage(tmp_path / "4")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.check(RUN)
        restored = checkpoints.restore(lambda step: at_step(state_of(seed=1), step))
        jax.tree.map(np.testing.assert_array_equal, restored.trained, whole.trained)
        assert int(restored.step) == 2
        assert f"{tmp_path}: removed the checkpoint of step 4: {tmp_path}/4/" in caplog.text
        assert told in caplog.text and "Resuming from step 2" in caplog.text
        assert steps_in(tmp_path) == [2]
        checkpoints.save(at_step(state_of(), 4), RUN)
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore(lambda step: state_of()).step) == 4


def test_with_none_whole_nothing_is_removed_and_nothing_begins_anew(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at_step(state_of(), step), RUN)
    for step in (1, 2):
        flip(largest(tmp_path / str(step)))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match=r"(?s)are damaged:\n  step 2: .*\n  step 1: .*\nRestore"),
    ):
        checkpoints.restore(lambda step: state_of())
    assert steps_in(tmp_path) == [1, 2]


def test_the_cause_is_told_of_a_long_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: " + "Error writing " * 99 + "No space left on device")

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(OSError, match="EXHAUSTED: .* No space left on device. Free disk"):
            checkpoints.save(at_step(state_of(), 1), RUN)
