"""Checkpoints of training, by Orbax: what has changed so far, to go on from.

    with Checkpoints("workdir/checkpoints", keep=2) as checkpoints:
        checkpoints.check(run)                               # same config, same frozen parameters
        state = checkpoints.restore(state_at)                # the newest whole one
        checkpoints.save(state, run, validation_loss=2.3)    # goes on in the background

Frozen parameters are not in it: they come from the file that training started from, which is told
by its hash. All processes save and restore together, each its own part, and another number of them,
or another mesh, may go on.

Beside its arrays a checkpoint has a record in JSON: `run`, the validation loss, and a digest of
each array, by which bits that have changed on the disk are found (Orbax does not find them).
"""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from paligemma_lib.runtime import processes
from paligemma_lib.runtime.retries import retry, watched
from paligemma_lib.train.compatibility import RECORD, check_run, record_of
from paligemma_lib.train.digests import checksum, digests, kind
from paligemma_lib.train.retention import NewestAndBest
from paligemma_lib.train.state import TrainState

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run in one folder; a context manager that waits for the last one.

    The newest `keep` are kept, and the one with the lowest validation loss. What is half-written
    when a process dies is never found again.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        """Opens or makes the folder, local or `gs://`."""
        path = os.fspath(folder)
        self._folder = path if "://" in path else os.path.abspath(path)
        self._policy = NewestAndBest(keep)
        # Orbax writes to a temporary folder in the background and renames it when all is written.
        # What a killed process left is removed at the next start.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        for step in self._manager.all_steps():
            with contextlib.suppress(Exception):  # `restore` tells of it
                self._policy.losses[step] = record_of(self._folder, step)["validation_loss"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._told():
            self._manager.close()

    def latest(self) -> int | None:
        """The step of the newest checkpoint, if there is one; it may be damaged."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, run: Mapping[str, Any], validation_loss: float | None = None
    ) -> None:
        """Saves a state after its step; returns when the state may be used again.

        Args:
          state: what has trained, the optimizer's state and the counters are saved.
          run: what must be the same to go on, as JSON: see `check`.
          validation_loss: if it was measured at this step.

        Raises:
          OSError: this checkpoint, or the one before, could not be written. It is not there then.
        """
        step, changing = int(state.step), _changing(state)
        # The record has a digest of every array: Orbax checks that files are there, not that their
        # bits are the ones that were written.
        record = {"run": dict(run), "validation_loss": validation_loss, "state": digests(changing)}
        self._policy.losses[step] = validation_loss
        with self._told():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(changing),
                    run=ocp.args.JsonSave({**record, "checksum": checksum(record)}),
                ),
            )

    def check(self, run: Mapping[str, Any], allow_changed: Collection[str] = ()) -> None:
        """Raises ValueError where `run` is not as it was when the last checkpoint was saved."""
        self._manager.wait_until_finished()
        check_run(self._folder, run, allow_changed)

    def restore(self, state_at: Callable[[int], TrainState]) -> TrainState:
        """Returns the state of the newest whole checkpoint; `state.step` says where it goes on.

        Damaged ones that are newer are told of and removed: their steps will be saved again.

        Args:
          state_at: a state as it was after so many steps, with any values; says what trains then,
            and where everything lies on the devices. Where there is no checkpoint,
            `state_at(0)` is returned.

        Raises:
          ValueError: other parameters trained then, or no checkpoint is whole.
        """
        problems: dict[int, str] = {}
        for step in self._steps():
            state = state_at(step)
            found, problem = self._read(step, state)
            if found is None:
                problems[step] = f"step {step}: {problem}"
                continue
            for damaged, told in problems.items():
                if jax.process_index() == 0:
                    _log.warning(
                        "%s: the checkpoint of %s; removed, going on from step %d",
                        *(self._folder, told, step),
                    )
                self._manager.delete(damaged)
                self._policy.losses.pop(damaged, None)
            return dataclasses.replace(state, **found)
        if problems:
            told = "\n  ".join(problems.values())
            raise ValueError(
                f"{self._folder}: none of the checkpoints is whole:\n  {told}\n"
                "Bring back a copy of one, or remove the folder to begin anew"
            )
        return state_at(0)

    def _steps(self) -> list[int]:
        """Newest first; all processes go by what the first one sees."""
        self._manager.wait_until_finished()
        # A shared file system may show a new folder to one process a little later than to another.
        seen = sorted(self._manager.all_steps(), reverse=True)
        return json.loads(processes.gather(json.dumps(seen).encode())[0])

    def _read(self, step: int, state: TrainState) -> tuple[dict[str, Any] | None, str]:
        """What has been saved of a state, or else what is wrong with it in some process.

        No step in here waits for other processes but those that say so: one may fail alone.
        """
        path = epath.Path(self._folder) / str(step)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _changing(state)
        )
        problem, found, wanted = "", None, {}
        try:
            wanted = record_of(self._folder, step)["state"]
        except Exception as error:  # whatever comes of reading what may be anything
            problem = f"{path / RECORD} is damaged ({_brief(error)})"
        if wanted:
            _check_kinds(wanted, target, f"{self._folder}, step {step}")
            try:
                found = retry(
                    lambda: ocp.StandardCheckpointHandler().restore(
                        path / "state", args=ocp.args.StandardRestore(target)
                    ),
                    str(path / "state"),
                )
            except Exception as error:
                problem = f"{path / 'state'} is damaged ({_brief(error)})"
        # One process may see a damaged file where another does not. All must go on from the same
        # checkpoint, so one that is bad for anybody is bad for all.
        for told in processes.gather(problem.encode()):  # waits for all
            if told:
                return None, told.decode()
        sums = digests(found)  # waits for all
        if changed := [name for name in wanted if sums[name] != wanted[name]]:
            names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
            return None, f"{path / 'state'} is damaged (other bits than were saved in {names})"
        return found, ""

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Makes one kind of error of all that may go wrong, perhaps in another thread."""
        try:
            with watched(f"checkpoints in {self._folder}"):
                yield
        except jax.errors.JaxRuntimeError:  # of the devices, or of another process
            raise
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self._folder}: {_brief(error)}. Make room, "
                "or see to the storage; the same command goes on from the checkpoint before"
            ) from error


def _check_kinds(saved: Mapping[str, str], target: Any, where: str) -> None:
    """Raises ValueError if arrays of other names, types or shapes were saved."""
    now = {
        f"{jax.tree_util.keystr(path)} {kind(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(target)
    }
    before = {f"{name} {told.split()[0]}" for name, told in saved.items()}
    if now != before:
        raise ValueError(
            f"{where}: it does not hold what trains now. Take another folder, or train what "
            f"trained then (saved or needed alone: {sorted(now ^ before)[:4]})"
        )


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:150]} ... {text[-250:]}"  # causes come last


def _changing(state: TrainState) -> dict[str, Any]:
    return {name: value for name, value in vars(state).items() if name != "frozen"}
