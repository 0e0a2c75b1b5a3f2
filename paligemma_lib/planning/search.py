"""Searches for the batch, the microbatches and the remat policy to train with on a topology.

    found = ways_to_train(job, compile_job)
    best = found[0]
    print(*overrides(best.job))        # --config.batch_size=512 --config.microbatches=1 ...

For each remat policy the search tries the largest batch that fits, and the requested batch with as
few microbatches as fit. The candidate with the most examples per second, as the roofline predicts
them, comes first.
"""

import dataclasses
from collections.abc import Callable

from paligemma_lib.model.variants import REMAT
from paligemma_lib.planning.compiling import Compiled
from paligemma_lib.planning.roofline import Roofline, predict
from paligemma_lib.planning.slices import Slices
from paligemma_lib.planning.work import Job, Training

_TRIES = 6  # compilations for one largest batch
_PRECISION = 16  # the largest batch is found up to 1/16 of its size
_ALIKE = 1.02  # a gain below 2 % is worth neither another batch nor more memory


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A training job that fits into memory, with its predicted speed."""

    job: Job
    compiled: Compiled
    limits: Roofline

    @property
    def batch_size(self) -> int:
        """Number of examples of a step."""
        return self.job.work.config.batch_size

    @property
    def examples_per_second(self) -> float:
        """Examples per second at best, see `Roofline`."""
        return self.batch_size / self.limits.seconds


def ways_to_train(job: Job, compile_job: Callable[[Job], Compiled]) -> list[Candidate]:
    """Tries remat policies and batches, and returns the candidates that fit, the best first.

    Args:
      job: the job to start from; its batch is the requested one.
      compile_job: a function such as `compiling.compile_job`.

    Returns:
      The candidates as `ranked` sorts them; an empty list where nothing fits.

    Raises:
      ValueError: the job is not training, or its topology is not of TPUs.
    """
    chip = Slices.named(job.topology, job.slices).chip
    if not isinstance(job.work, Training) or chip is None:
        raise ValueError("ways_to_train: expected a training job on TPUs")
    wanted = job.work.config.batch_size
    candidates: dict[Job, Candidate] = {}

    def attempt(job: Job) -> Compiled:
        compiled = compile_job(job)
        if compiled.fits:
            candidates[job] = Candidate(job, compiled, predict(compiled, chip))
        return compiled

    for remat in reversed(REMAT):
        model = dataclasses.replace(job.model, remat=remat)
        one = dataclasses.replace(job, model=model, work=_work(job, wanted, 1))
        largest = largest_batch(one, attempt)
        # A microbatch of `largest` examples fits. The fewest microbatches, in powers of two, are
        # tried, since each microbatch gathers the weights again.
        micro = 1
        while largest and wanted > micro * largest:
            micro *= 2
        if micro > 1 and wanted % (micro * _devices(job)) == 0:
            attempt(dataclasses.replace(job, model=model, work=_work(job, wanted, micro)))
    return ranked([*candidates.values()], wanted)


def ranked(candidates: list[Candidate], wanted: int) -> list[Candidate]:
    """Sorts candidates by speed.

    Candidates within 2 % of the fastest count as equal: of these the requested batch comes first,
    then the least memory.
    """
    if not candidates:
        return []
    fastest = max(each.examples_per_second for each in candidates)

    def key(each: Candidate) -> tuple[bool, bool, float, float]:
        alike = each.examples_per_second * _ALIKE >= fastest
        memory = each.compiled.peak if alike else 0
        return not alike, alike and each.batch_size != wanted, memory, -each.examples_per_second

    return sorted(candidates, key=key)


def largest_batch(job: Job, compile_job: Callable[[Job], Compiled]) -> int:
    """Returns the largest batch that fits, up to 1/16 of its size; 0 where none fits.

    Peak memory is nearly linear in the batch, so two compilations tell where to look.
    """
    assert isinstance(job.work, Training)
    unit = _devices(job) * job.work.config.microbatches
    size = job.work.config.batch_size // unit * unit or unit
    fits, too_large = 0, 0
    points: dict[int, int] = {}
    for _ in range(_TRIES):
        work = _work(job, size, job.work.config.microbatches)
        compiled = compile_job(dataclasses.replace(job, work=work))
        if compiled.peak:
            points[size] = compiled.peak
        if compiled.fits:
            fits = size
        else:
            too_large = size
        if too_large and too_large - fits <= max(unit, fits // _PRECISION):
            break
        size = _next(points, compiled.limit, fits, too_large, unit)
    return fits


def _next(points: dict[int, int], limit: int, fits: int, too_large: int, unit: int) -> int:
    size = 2 * fits if not too_large else too_large // 2
    # With two points (batch, peak) of different peaks, the line through the two largest batches
    # tells where the peak reaches the limit: low + (limit - low_peak) / slope.
    if len(points) > 1:
        (low, low_peak), (high, high_peak) = sorted(points.items())[-2:]
        if high_peak > low_peak:
            size = low + int((limit - low_peak) * (high - low) / (high_peak - low_peak))
    # Every try moves a bound by `unit` or by 1/16 of `fits`: a wrong line cannot stall the search.
    if too_large:
        size = min(size, too_large - max(unit, fits // _PRECISION))
    return max(size // unit * unit, fits + max(unit, fits // _PRECISION // unit * unit))


def overrides(job: Job) -> list[str]:
    """Returns the arguments for `paligemma finetune` that train as the job does."""
    if not isinstance(job.work, Training):
        raise ValueError("overrides: a decoding job has none")
    config = job.work.config
    return [
        f"--config.batch_size={config.batch_size}",
        f"--config.microbatches={config.microbatches}",
        f"--config.model.remat={job.model.remat}",
        f"--config.fsdp={config.fsdp}",
    ]


def _work(job: Job, batch_size: int, microbatches: int) -> Training:
    assert isinstance(job.work, Training)
    config = dataclasses.replace(job.work.config, batch_size=batch_size, microbatches=microbatches)
    return dataclasses.replace(job.work, config=config)


def _devices(job: Job) -> int:
    return Slices.named(job.topology, job.slices).size
