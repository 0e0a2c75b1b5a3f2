"""Generates drawn scenes with true captions, to try the library without a download.

folder = write_scenes("OUT", count=1500, seed=0)        # in the layout of Kaggle's Flickr8k
scene = compose(seed=0, index=42)
image = draw(scene, random.Random(7))
"""

from paligemma_lib.sample_data.composing import FORMATS, compose
from paligemma_lib.sample_data.drawing import draw
from paligemma_lib.sample_data.scene_files import WORDINGS, write_scenes

__all__ = ["FORMATS", "WORDINGS", "compose", "draw", "write_scenes"]
