"""Is everything in place for a run? The checks that `examples/finetune.py` makes at its start.

python -m paligemma_lib.doctor                                          # this installation
python -m paligemma_lib.doctor --config=examples/configs/flickr8k.py    # a run of finetune.py

from paligemma_lib.doctor import Setup, require
require(Setup(checkpoint="paligemma-3b-pt-224.f16.npz", data={"train": source}, workdir="runs"))
"""

from paligemma_lib.doctor.config import (
    may_differ_of,
    optimizer_of,
    plain,
    setup_of,
    stages_of,
)
from paligemma_lib.doctor.examination import Finding, examine, require
from paligemma_lib.doctor.setup import Setup, Stage

__all__ = [
    "Finding",
    "Setup",
    "Stage",
    "examine",
    "may_differ_of",
    "optimizer_of",
    "plain",
    "require",
    "setup_of",
    "stages_of",
]
