"""Counts the damaged records of a run over all its processes and starts, and limits their share.

    recall_damage(prepared)                  # at the start: what earlier starts have found
    found = count_damage(prepared)           # {"train": {17: "... is damaged"}, "validation": {}}

`damaged_records.json` in the workdir lists them, with what is wrong with each.
"""

import json
from collections.abc import Mapping

import jax

from paligemma_lib.data.replacing import Replacing, check_share
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.runtime import processes
from paligemma_lib.runtime.atomic import atomic_write
from paligemma_lib.runtime.put_aside import put_aside
from paligemma_lib.runtime.regular_files import read_bounded

DAMAGED = "damaged_records.json"

_MAX_BYTES = 1 << 30

Damage = Mapping[str, Mapping[int, str]]  # split -> number of a record -> what is wrong with it


def recall_damage(prepared: Prepared) -> Damage:
    """Looks again at the records that earlier starts of this run found damaged.

    Each process takes its share of them. So what was repaired meanwhile counts as whole, and the
    counts of a run do not depend on how often it was stopped.

    Returns:
      The damaged records that are known now, as `count_damage` does, with the same errors.
    """
    path = prepared.workdir / DAMAGED
    # A shared file system may show the file to some processes only: all follow the main process.
    known: dict[str, list[int]] = {}
    if jax.process_index() == 0 and path.is_file():
        try:
            known = _listed(read_bounded(path, _MAX_BYTES))
        except (OSError, ValueError) as error:
            put_aside(path, str(error))  # what is damaged is found again
    known = json.loads(processes.gather(json.dumps(known).encode())[0])
    for split, source in _replacing(prepared).items():
        numbers = sorted(n for n in known.get(split, []) if 0 <= n < len(source))
        source.verify(numbers[jax.process_index() :: jax.process_count()])
    return count_damage(prepared)


def count_damage(prepared: Prepared) -> Damage:
    """Returns the damaged records that all processes have found, and writes them to the workdir.

    All processes call it together.

    Raises:
      ValueError: more than the config's `data.max_corrupt` of the records of a split are damaged.
    """
    sources = _replacing(prepared)
    mine = {split: source.damaged.copy() for split, source in sources.items()}
    parts = [json.loads(part) for part in processes.gather(json.dumps(mine).encode())]
    found: dict[str, dict[int, str]] = {}
    for split in sources:
        merged = {int(number): told for part in parts for number, told in part[split].items()}
        found[split] = dict(sorted(merged.items()))
    path = prepared.workdir / DAMAGED
    if jax.process_index() == 0 and (any(found.values()) or path.is_file()):
        with atomic_write(path) as file:
            file.write(json.dumps(found, indent=1).encode())
    for split, source in sources.items():
        check_share(found[split], len(source), source.max_corrupt)
    return found


def _listed(data: bytes) -> dict[str, list[int]]:
    """Parses the file: numbers of records by split. Raises ValueError if it is something else."""
    try:
        found = json.loads(data)
        return {split: [int(number) for number in told] for split, told in found.items()}
    except Exception as error:
        raise ValueError(f"not a list of damaged records ({error})") from error


def _replacing(prepared: Prepared) -> dict[str, Replacing]:
    return {
        split: source for split, source in prepared.data.items() if isinstance(source, Replacing)
    }
