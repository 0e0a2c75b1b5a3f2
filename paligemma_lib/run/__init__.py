"""A run of fine-tuning: its one config, what is checked before it starts, and the job itself.

    import paligemma_lib as pg

    config = pg.run.RunConfig(workdir="runs/mine", model=pg.run.ModelConfig(checkpoint="nano"))
    pg.run.finetune(config)                         # what `paligemma finetune` does
    for finding in pg.run.run_checks(pg.run.Setup(config)): print(finding)

    config = pg.run.load("flickr8k", ["--config.batch_size=16"])

The names load when touched (PEP 562): a config costs no TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
