"""Checkpoints of training: what comes back, what is kept, what is refused."""

import errno
import json
import math
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from process_cases import TIMEOUT, launched
from saving_cases import RUN, at_step, state_of, steps_in

from paligemma_lib.runtime import retries
from paligemma_lib.train import Checkpoints
from paligemma_lib.train.compatibility import RECORD


@pytest.mark.parametrize("name", ["sgd", "adamw", "adafactor"])
def test_a_state_comes_back_bit_for_bit(tmp_path, name):
    saved = at_step(state_of(name, step=7), 7)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(saved, RUN)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 7
        checkpoints.check(RUN)
        fresh = state_of(name, seed=1)
        restored = checkpoints.restore(lambda step: at_step(fresh, step))
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
    assert steps_in(tmp_path) == [2, 4, 5]
    with Checkpoints(tmp_path, keep=2) as checkpoints:  # another start
        checkpoints.save(at_step(state_of(), 6), RUN, 1.5)
    assert steps_in(tmp_path) == [2, 5, 6]


def test_nan_is_never_the_best(tmp_path):
    losses = {1: math.nan, 2: 2.0, 3: 1.0, 4: 3.0, 5: 4.0}
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(at_step(state_of(), step), RUN, loss)
    assert steps_in(tmp_path) == [3, 5]


def test_a_loss_that_is_not_finite_is_null_in_the_record(tmp_path):
    def refuse(name):
        raise AssertionError(name)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 1), RUN, math.nan)
    written = (tmp_path / "1" / RECORD).read_text()
    assert json.loads(written, parse_constant=refuse)["validation_loss"] is None
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.check(RUN)
        assert checkpoints.losses == {}


@pytest.mark.parametrize("keep", [0, -1, True, 1.5])
def test_keeping_nothing_is_refused(tmp_path, keep):
    with pytest.raises(ValueError, match="keep=.*, expected a whole number of at least 1"):
        Checkpoints(tmp_path, keep=keep)


def test_a_loss_that_was_measured_later_counts(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at_step(state_of(), 1), RUN, 2.0)
        checkpoints.save(at_step(state_of(), 2), RUN)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.recall({2: 1.0})
        checkpoints.save(at_step(state_of(), 3), RUN, 3.0)
    assert steps_in(tmp_path) == [2, 3]


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    state = state_of()
    with Checkpoints(tmp_path / "new") as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.check(RUN)
        assert checkpoints.restore({0: state}.__getitem__) is state


def test_another_configuration_is_refused_unless_it_may_differ(tmp_path):
    other = {"seed": 4, "optimizer": {"name": "adamw", "stages": (1, 2)}, "extra": None}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 2), RUN)
        with pytest.raises(ValueError, match=r"seed: was 3, is 4") as error:
            checkpoints.check(other)
        assert "stages" not in str(error.value)
        checkpoints.check(other, allow_changed=["seed", "extra"])


def test_other_parameters_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 2), RUN)
        with pytest.raises(
            ValueError, match="step 2: it does not hold the parameters that train now"
        ):
            checkpoints.restore(lambda step: state_of(what="attention"))
    assert steps_in(tmp_path) == [2]


def test_a_half_written_checkpoint_is_not_found(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(at_step(state_of(), step), RUN)
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp-123")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
        assert int(checkpoints.restore(lambda step: state_of()).step) == 1


def test_what_cannot_be_written_is_told_and_is_not_there(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("no space left")

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(), 1), RUN)
        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(
            OSError, match=f"could not be written to {tmp_path}: no space left. Free"
        ):
            checkpoints.save(at_step(state_of(), 2), RUN)
    assert steps_in(tmp_path) == [1]


def test_what_fails_to_be_read_now_and_then_is_read_again(tmp_path, monkeypatch, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state_of(seed=3), 2), RUN)
    left = {"record": 2, "arrays": 2}

    def failing(name, function):
        def wrapped(*args, **kwargs):
            if left[name]:
                left[name] -= 1
                raise OSError(errno.EIO, "Input/output error")
            return function(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(retries.retry, "__defaults__", ((0.0, 0.0),))
    arrays = ocp.StandardCheckpointHandler
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(Path, "read_text", failing("record", Path.read_text))
        monkeypatch.setattr(arrays, "restore", failing("arrays", arrays.restore))
        assert int(checkpoints.restore(lambda step: state_of()).step) == 2
    assert left == {"record": 0, "arrays": 0}
    assert caplog.text.count("Input/output error; trying again for") == 2


def test_a_write_that_stalls_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(retries, "_STALL", 0.2)
    monkeypatch.setattr(retries, "_LOOK", 0.05)
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: time.sleep(2.5))
        checkpoints.save(at_step(state_of(), 1), RUN)
    assert f"still waiting for checkpoints in {tmp_path}, after " in caplog.text


TOGETHER = """
    import sys
    from pathlib import Path
    from paligemma_lib.runtime import processes

    folder = Path(sys.argv[1])
    host, count, number = (argument.split("=")[1] for argument in sys.argv[-3:])
    with processes.joined(host, int(count), int(number)):
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec
        from paligemma_lib import sharding
        from paligemma_lib.train import Checkpoints, TrainState

        mesh = sharding.make_mesh()
        split = NamedSharding(mesh, PartitionSpec("fsdp"))

        def state_at(step):
            values = np.arange(1 << 16, dtype=np.float32) + step
            array = jax.make_array_from_callback(values.shape, split, lambda index: values[index])
            one = [jax.device_put(np.int32(step), sharding.replicated(mesh)) for _ in range(5)]
            return TrainState(one[0], {"a": (array,)}, {"a": ()}, {}, *one[1:])

        with Checkpoints(folder) as checkpoints:
            for step in (1, 2):
                checkpoints.save(state_at(step), {})
        with processes.main_process_first():
            if number == "0":  # the second half of the array, which the other process reads
                files = (folder / "2").rglob("*")
                largest = max(files, key=lambda path: (path.stat().st_size, str(path)))
                data = bytearray(largest.read_bytes())
                data[len(data) * 3 // 4] ^= 4
                largest.write_bytes(data)
        with Checkpoints(folder) as checkpoints:
            checkpoints.check({})
            state = checkpoints.restore(state_at)
            (array,) = state.trained["a"]
            mine = np.concatenate([np.asarray(shard.data) for shard in array.addressable_shards])
            wanted = np.split(np.arange(1 << 16, dtype=np.float32) + 1, 2)[int(number)]
            assert int(state.step) == 1 and np.array_equal(mine, wanted)
            checkpoints.save(state_at(2), {})
    sys.stdout.write(f"restored by {number}\\n")
"""


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_processes_agree_on_the_newest_whole_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(TOGETHER))
    result = launched(2, [str(script), str(tmp_path / "checkpoints")])
    assert result.returncode == 0, result.stderr[-3000:]
    assert "restored by 0" in result.stdout and "restored by 1" in result.stdout
    assert result.stderr.count("the checkpoint of step 2: ") == 1  # one of them says so
    assert steps_in(tmp_path / "checkpoints") == [1, 2]
