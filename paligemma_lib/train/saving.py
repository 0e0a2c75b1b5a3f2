"""Saves and restores training checkpoints with Orbax.

    with Checkpoints("workdir/checkpoints", keep=2) as checkpoints:
        checkpoints.check(run)                               # same config, same frozen parameters
        state = checkpoints.restore(state_at)                # the newest whole one
        checkpoints.save(state, run, validation_loss=2.3)    # goes on in the background

Checkpoints do not contain frozen parameters. Those come from the file that training started from,
which `run` identifies by its hash. All processes save and restore together, each its own shards. A
run may resume with another number of processes or another mesh.

Besides its arrays, a checkpoint contains a JSON record: `run`, the validation loss, and a digest of
each array. Digests detect bits that have changed on the disk, which Orbax does not detect.
"""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from paligemma_lib.runtime import processes
from paligemma_lib.runtime.retries import retry, watched
from paligemma_lib.runtime.strict_json import finite
from paligemma_lib.train.checkpoint_problems import brief, check_damage, check_kinds
from paligemma_lib.train.compatibility import RECORD, check_run, record_of
from paligemma_lib.train.digests import checksum, digests, not_finite
from paligemma_lib.train.retention import NewestAndBest
from paligemma_lib.train.state import TrainState

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run in one folder; a context manager that waits for the last save.

    The newest `keep` checkpoints and the one with the lowest validation loss are preserved. Saving
    is atomic: a checkpoint that was half written when a process died is never restored.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        """Opens the folder, local or `gs://`, and creates it if it does not exist.

        Args:
          folder: the folder.
          keep: number of newest checkpoints to preserve, at least 1.

        Raises:
          ValueError: `keep` is not a whole number of at least 1.
        """
        path = os.fspath(folder)
        self._folder = path if "://" in path else os.path.abspath(path)
        self._policy = NewestAndBest(keep)
        # Orbax writes to a temporary folder in the background, and renames it when everything is
        # written. Temporary folders of a killed process are removed here, at the next start.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        for step in self._manager.all_steps():
            with contextlib.suppress(Exception):  # damaged: `restore` reports it
                self._policy.losses[step] = record_of(self._folder, step)["validation_loss"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._told():
            self._manager.close()

    def wait(self) -> None:
        """Waits until everything is saved; raises OSError as `save` does."""
        with self._told():
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """Returns the step of the newest checkpoint, which may be damaged, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints, newest first; some may be damaged.

        All processes call it together. They get what the main process sees: on a shared file
        system, a new folder may become visible to one process later than to another.
        """
        self.wait()
        seen = sorted(self._manager.all_steps(), reverse=True)
        return json.loads(processes.gather(json.dumps(seen).encode())[0])

    @property
    def losses(self) -> dict[int, float]:
        """Validation losses by step, as the checkpoints in the folder have recorded them."""
        return {step: loss for step, loss in self._policy.losses.items() if loss is not None}

    def recall(self, losses: Mapping[int, float]) -> None:
        """Takes over validation losses by step, which decide which checkpoint is the best.

        A checkpoint lacks its loss if the run was stopped before the validation of its step.
        """
        self._policy.losses.update(losses)

    def save(
        self, state: TrainState, run: Mapping[str, Any], validation_loss: float | None = None
    ) -> None:
        """Starts to save a state; returns when the state may be used, and donated, again.

        Args:
          state: the state; trained parameters, optimizer state and counters are saved.
          run: settings that must not change when a run resumes, see `check`.
          validation_loss: validation loss of this step, if it was measured.

        Raises:
          OSError: this checkpoint or the previous one could not be written, so it does not exist.
        """
        step, changing = int(state.step), _changing(state)
        # The record has a digest of every array: Orbax checks that files exist, not that they still
        # contain the bits that were written.
        digest = digests(changing)
        record = finite({"run": run, "validation_loss": validation_loss, "state": digest})
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
        """Raises ValueError if `run` differs from the run that saved the newest checkpoint."""
        self._manager.wait_until_finished()
        check_run(self._folder, run, allow_changed)

    def restore(
        self, state_at: Callable[[int], TrainState], preferred: Sequence[int] = ()
    ) -> TrainState:
        """Returns the state of the newest checkpoint that is not damaged, to resume from.

        Damaged checkpoints that are newer are logged and removed, since the resumed run will save
        their steps again.

        Args:
          state_at: returns a state with the structure, shapes and shardings that the state has
            after a given number of steps; only its frozen parameters need the right values. If
            the folder has no checkpoint, `state_at(0)` is returned.
          preferred: steps to try first, in this order; then the newest.

        Raises:
          ValueError: a checkpoint contains other parameters than train now, or all are damaged.
          OSError: the storage fails, or refuses to be read. Nothing is removed.
        """
        problems: dict[int, str] = {}
        steps = self.steps()
        for step in dict.fromkeys([*(s for s in preferred if s in steps), *steps]):
            state = state_at(step)
            found, problem = self._read(step, state)
            if found is None:
                problems[step] = f"step {step}: {problem}"
                continue
            for damaged, told in problems.items():
                if jax.process_index() == 0:
                    _log.warning(
                        "%s: removed the checkpoint of %s. Resuming from step %d",
                        *(self._folder, told, step),
                    )
                self._manager.delete(damaged)
                self._policy.losses.pop(damaged, None)
            return dataclasses.replace(state, **found)
        if problems:
            told = "\n  ".join(problems.values())
            raise ValueError(
                f"{self._folder}: all checkpoints are damaged:\n  {told}\n"
                "Restore one from a backup, or remove the folder to start over"
            )
        return state_at(0)

    def _read(self, step: int, state: TrainState) -> tuple[dict[str, Any] | None, str]:
        """Returns the saved part of a state, or None and what is wrong with it in some process.

        Reading may fail in one process alone. So only the lines that say so wait for the others.
        """
        path = epath.Path(self._folder) / str(step)
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _changing(state)
        )
        problem, found, wanted = "", None, {}
        try:
            wanted = record_of(self._folder, step)["state"]
        except Exception as error:  # a damaged file may raise any type of error
            check_damage(error, path / RECORD)
            problem = f"{path / RECORD} is damaged ({brief(error)})"
        if wanted:
            check_kinds(wanted, target, f"{self._folder}, step {step}")
            try:
                found = retry(
                    lambda: ocp.StandardCheckpointHandler().restore(
                        path / "state", args=ocp.args.StandardRestore(target)
                    ),
                    str(path / "state"),
                )
            except Exception as error:
                check_damage(error, path / "state")
                problem = f"{path / 'state'} is damaged ({brief(error)})"
        # One process may see a damaged file where another does not. All must resume from the same
        # checkpoint, so a checkpoint that one process cannot read is skipped by all.
        for told in processes.gather(problem.encode()):  # waits for all processes
            if told:
                return None, told.decode()
        sums = digests(found)  # waits for all processes
        if changed := [name for name in wanted if sums[name] != wanted[name]]:
            names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
            return None, f"{path / 'state'} is damaged (digest mismatch in {names})"
        # A step whose gradients are not finite is skipped, but its update may still overflow.
        if wrong := not_finite(found and found["trained"]):
            return None, f"{path / 'state'} is of no use: values are not finite, {wrong[0]}"
        return found, ""

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns errors of Orbax, also those of its background threads, into OSError."""
        try:
            with watched(f"checkpoints in {self._folder}"):
                yield
        except jax.errors.JaxRuntimeError:  # a device or another process failed
            raise
        except Exception as error:
            raise OSError(
                f"a checkpoint could not be written to {self._folder}: {brief(error)}. Free disk "
                "space or check the storage, then run the same command again to continue from the "
                "previous checkpoint"
            ) from error


def _changing(state: TrainState) -> dict[str, Any]:
    return {name: value for name, value in vars(state).items() if name != "frozen"}
