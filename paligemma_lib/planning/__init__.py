"""Predicts memory and speed of a job by compiling it for TPU slices that are not attached.

import paligemma_lib as pg

config = pg.run.load("pod")
job = pg.planning.Job(model, pg.planning.Training(config), "v5e:2x4")
compiled = pg.planning.compile_job(job)
limits = pg.planning.predict(compiled, pg.planning.CHIPS["v5e"])
print(pg.planning.plan_table([("v5e:2x4", compiled, limits)]))

All results are predictions: nothing runs. Compiling needs libtpu (`pip install -e ".[tpu]"`),
except for the topologies cpu:N.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
