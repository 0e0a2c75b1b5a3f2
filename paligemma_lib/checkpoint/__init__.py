"""Checkpoints: parameters in and out, straight to and from their devices.

import paligemma_lib as pg

params = pg.checkpoint.load_params("paligemma-3b-pt-224.f16.npz", config, dtype="bfloat16")
pg.checkpoint.save_params("paligemma_flickr8k.params.f16.npz", params, dtype="float16")

python -m paligemma_lib.checkpoint FILE [--config NAME]        # what it is, or what is wrong
"""

from paligemma_lib.checkpoint import matching, npz, params, placement
from paligemma_lib.checkpoint.params import load_params, save_params

__all__ = ["load_params", "matching", "npz", "params", "placement", "save_params"]
