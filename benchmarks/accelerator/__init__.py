"""The parts of `on_accelerator.py`: each module is a process of its own, with `main()`.

Needs JAX, Flax, Optax, Orbax and NumPy of other packages; transformers and PyTorch for the peer.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed
