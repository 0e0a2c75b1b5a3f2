"""Runs fine-tuning: the config of a run, the checks before it starts, and the job itself.

    import paligemma_lib as pg

    config = pg.run.RunConfig(workdir="runs/mine", model=pg.run.ModelConfig(checkpoint="nano"))
    pg.run.finetune(config)                         # what `paligemma finetune` does
    for finding in pg.run.run_checks(pg.run.Setup(config)): print(finding)

    config = pg.run.load("flickr8k", ["--config.batch_size=16"])

Names are imported on first access (PEP 562), so that a config does not import TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
