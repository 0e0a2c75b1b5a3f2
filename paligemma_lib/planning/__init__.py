"""Will it fit, and how fast could it be: compile for TPU slices that are not here.

import paligemma_lib as pg

config = pg.run.load("pod")
job = pg.planning.Job(model, pg.planning.Training(config), "v5e:2x4")
compiled = pg.planning.compile_job(job)
limits = pg.planning.predict(compiled, pg.planning.CHIPS["v5e"])
print(pg.planning.plan_table([("v5e:2x4", compiled, limits)]))

What comes out are predictions. Needs libtpu (`pip install -e ".[tpu]"`), except for cpu:N.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
