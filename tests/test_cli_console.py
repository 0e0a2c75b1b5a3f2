"""Tests of what the command hides and spares."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from paligemma_lib.cli.console import load_tensorflow

load_tensorflow()
print("keras" in sys.modules, os.environ.get("TF_USE_LEGACY_KERAS"))
import tensorflow as tf
print(tf.keras.__version__[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "0"])
def test_keras_is_imported_when_it_is_used(given):
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment |= {"TF_USE_LEGACY_KERAS": given} if given else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # What somebody has set stays, and means to TensorFlow what it meant.
    assert done.stdout.split() == [str(given is not None), str(given), "3"]
