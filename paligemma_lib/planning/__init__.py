"""Will it fit, and how fast could it be: compile for TPU slices that are not here.

import paligemma_lib as pg

config = pg.run.load("pod")
job = pg.planning.Job(model, pg.planning.Training(config), "v5e:2x4")
compiled = pg.planning.compile_job(job)
limits = pg.planning.predict(compiled, pg.planning.CHIPS["v5e"])
print(pg.planning.plan_table([("v5e:2x4", compiled, limits)]))

What comes out are predictions. Needs libtpu (`pip install -e ".[tpu]"`), except for cpu:N.
"""

from paligemma_lib.planning.chips import CHIPS, Chip
from paligemma_lib.planning.collectives import Collective
from paligemma_lib.planning.compiling import Compiled, compile_job
from paligemma_lib.planning.roofline import Roofline, predict
from paligemma_lib.planning.search import overrides, ways_to_train
from paligemma_lib.planning.slices import Slices
from paligemma_lib.planning.table import NOTE, messages, plan_table
from paligemma_lib.planning.work import Decoding, Job, Training

__all__ = [
    "CHIPS",
    "NOTE",
    "Chip",
    "Collective",
    "Compiled",
    "Decoding",
    "Job",
    "Roofline",
    "Slices",
    "Training",
    "compile_job",
    "messages",
    "overrides",
    "plan_table",
    "predict",
    "ways_to_train",
]
