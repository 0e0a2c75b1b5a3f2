"""Searching for a batch, on a compiler that is made up."""

import dataclasses

import pytest

import paligemma_lib as pg
from paligemma_lib.planning import Compiled, Decoding, Job, Training, overrides, ways_to_train
from paligemma_lib.planning.search import largest_batch
from paligemma_lib.run import RunConfig

GIB = 2**30
LIMIT = 16 * GIB
KEPT = {"full": 0.1, "dots": 0.4, "none": 1.6}  # GiB for each example of a device
WORK = {"full": 1.3, "dots": 1.1, "none": 1.0}
CONFIG = RunConfig(batch_size=256)
JOB = Job(pg.model.variants.nano(), Training(CONFIG), "v5e:2x4")


class Compiler:
    """4 GiB and so much for each example; computing takes a second for each, gathering two."""

    def __init__(self):
        self.jobs = []

    def __call__(self, job):
        self.jobs.append(job)
        local = job.work.config.batch_size // 8
        peak = int((4 + KEPT[job.model.remat] * local / job.work.config.microbatches) * GIB)
        flops = WORK[job.model.remat] * local * 197e12
        return Compiled(
            peak <= LIMIT,
            peak=peak,
            limit=LIMIT,
            flops=flops,
            model_flops=local * 197e12,
            hbm_bytes=2 * 819e9 * job.work.config.microbatches,
            devices=8,
        )


@pytest.mark.parametrize(("remat", "most"), [("full", 960), ("dots", 240), ("none", 56)])
@pytest.mark.parametrize("start", [8, 256, 4096])
def test_the_largest_batch_that_fits(remat, most, start):
    model = dataclasses.replace(JOB.model, remat=remat)
    work = Training(dataclasses.replace(CONFIG, batch_size=start))
    compiler = Compiler()
    found = largest_batch(dataclasses.replace(JOB, model=model, work=work), compiler)
    assert most * 15 / 16 - 8 <= found <= most
    assert len(compiler.jobs) <= 6


def test_nothing_fits_where_parameters_do_not():
    def refuse(job):
        return Compiled(False, "too large", peak=20 * GIB + job.work.config.batch_size, limit=LIMIT)

    assert largest_batch(JOB, refuse) == 0
    assert ways_to_train(JOB, refuse) == []


def test_the_fastest_comes_first_and_keeps_the_batch_that_was_asked_for():
    found = ways_to_train(JOB, Compiler())
    best = found[0]
    # Nothing is computed again, in as few microbatches as fit: the fewer the gathers.
    assert overrides(best.job) == [
        "--config.batch_size=256",
        "--config.microbatches=8",
        "--config.model.remat=none",
        "--config.fsdp=0",
    ]
    assert {each.job.model.remat for each in found} == {"none", "dots", "full"}
    assert max(each.batch_size for each in found) > 900
    speeds = [each.examples_per_second for each in found]
    assert speeds[0] * 1.02 > max(speeds)


def test_among_those_alike_the_one_with_less_memory():
    class Alike(Compiler):
        def __call__(self, job):
            flops = 197e12 * job.work.config.batch_size
            return dataclasses.replace(super().__call__(job), flops=flops)

    best = ways_to_train(JOB, Alike())[0]
    assert (best.batch_size, best.job.model.remat) == (256, "full")


def test_only_training_on_tpus_is_searched():
    for job in (
        dataclasses.replace(JOB, work=Decoding(CONFIG)),
        dataclasses.replace(JOB, topology="cpu:8"),
    ):
        with pytest.raises(ValueError, match="expected a training job on TPUs"):
            ways_to_train(job, Compiler())
