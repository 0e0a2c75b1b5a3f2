"""The model side needs no TensorFlow, and of the library little else."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["tensorflow"] = None
import paligemma_lib.model
loaded = [name for name in sys.modules if name.startswith("paligemma_lib.")]
known = ("model", "batch", "deprecation", "parameter_roles", "quantized", "runtime", "value_ranges")
known = tuple(f"paligemma_lib.{name}" for name in known)
print([name for name in loaded if not name.startswith(known)])
"""


def test_model_imports_alone_and_without_tensorflow():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
