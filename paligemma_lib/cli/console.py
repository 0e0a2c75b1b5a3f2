"""Keeps the log lines of TensorFlow, absl and JAX out of the terminal, and formats errors."""

import importlib
import importlib.util
import logging
import os
import sys
import tempfile

from paligemma_lib.runtime.visible_text import told

_THEIRS = (
    "jax", "jax._src.xla_bridge", "orbax", "tensorflow", "absl", "etils", "kagglehub",
    "uvicorn", "python_multipart",
)  # fmt: skip
_KERAS = "TF_USE_LEGACY_KERAS"


class WrongUse(ValueError):
    """Raised for options that contradict each other or are invalid; the exit code is 2."""


def keep_others_quiet(verbose: bool) -> None:
    """Sets log levels so that other libraries print errors only, and this one all but its details.

    It must be called before these libraries are imported, as they read environment variables then.

    Args:
      verbose: whether other libraries keep their own log levels.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible("%(levelname)s: %(message)s"))
    ours = logging.getLogger("paligemma_lib")
    ours.handlers[:], ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    # Without this, TensorFlow reads blocks of 64 MiB from gs://, however few bytes are requested.
    os.environ.setdefault("GCS_READ_CACHE_DISABLED", "1")
    if verbose:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in _THEIRS:
        logging.getLogger(name).setLevel(logging.ERROR)
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)


def load_tensorflow() -> None:
    """Imports TensorFlow and hides what its C++ code prints meanwhile, which no setting prevents.

    If the import fails, the hidden output is printed. Keras waits until `tf.keras` is used.
    """
    if "tensorflow" in sys.modules:
        return
    # TensorFlow imports Keras 3, which imports pandas and scikit-learn: up to 5 of 12 seconds. Told
    # to use Keras 2, it goes on where that is not installed.
    spared = _KERAS not in os.environ and importlib.util.find_spec("tf_keras") is None
    if spared:
        os.environ[_KERAS] = "true"
    # C++ writes to file descriptor 2 and not to `sys.stderr`. So the descriptor itself points to a
    # file meanwhile.
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except Exception:  # a signal needs no explanation
            said.seek(0)
            os.write(before, said.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            if spared:  # `tf.keras` looks at it when it is first used
                del os.environ[_KERAS]


def error_line(error: Exception) -> str | None:
    """Returns an error as one message; None for a bug, which needs its traceback."""
    if isinstance(error, ValueError | OSError | ImportError):
        return told(str(error)) or type(error).__name__
    if "RESOURCE_EXHAUSTED" in str(error):  # a JaxRuntimeError, whose module may not be loaded
        first = told(str(error).splitlines()[0][:300])
        return (
            f"the device has too little memory ({first}). Use a smaller batch_size or more "
            "microbatches, model.remat=full, model.frozen_dtype=bfloat16, or 4 bits: nf4"
        )
    return None


def asked_wrongly(error: Exception) -> bool:
    """Whether an error is wrong usage, found before the command did anything."""
    from paligemma_lib.run.options import ConfigError  # imports pydantic, which takes time

    return isinstance(error, WrongUse | ConfigError)


class _Visible(logging.Formatter):
    """Formats records, so that names and errors in them cannot act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return told(super().format(record))
