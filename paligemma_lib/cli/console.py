"""What appears in a terminal: lines of ours, and nothing of TensorFlow's, absl's or JAX's."""

import importlib
import logging
import os
import sys
import tempfile

_THEIRS = ("jax", "jax._src.xla_bridge", "orbax", "tensorflow", "absl", "etils", "kagglehub")


class WrongUse(ValueError):
    """What was asked makes no sense: the exit code is 2."""


def keep_others_quiet(verbose: bool) -> None:
    """Has other libraries tell errors alone, before they load; ours still warn.

    Args:
      verbose: lets them speak.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("paligemma_lib")
    ours.handlers[:], ours.propagate = [handler], False
    # TensorFlow would read 64 MiB of gs:// at a time, however little is asked for.
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
    """Imports TensorFlow without what its C++ code says then, which no setting prevents.

    Where the import fails, all of that is shown.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            said.seek(0)
            os.write(before, said.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


def error_line(error: Exception) -> str | None:
    """An error for people; None: it is a fault of the program, and wants its traceback."""
    if isinstance(error, ValueError | OSError | ImportError):
        return printable(str(error)) or type(error).__name__
    if "RESOURCE_EXHAUSTED" in str(error):  # a JaxRuntimeError, whose module may not be loaded
        first = str(error).splitlines()[0][:300]
        return (
            f"there is too little memory on the device ({first}). What helps: a smaller "
            "batch_size or more microbatches, model.remat=full, model.frozen_dtype=bfloat16"
        )
    return None


def asked_wrongly(error: Exception) -> bool:
    """Whether the command makes no sense, and nothing was tried."""
    from paligemma_lib.run.options import ConfigError  # which loads pydantic

    return isinstance(error, WrongUse | ConfigError)


def printable(text: str) -> str:
    """Without what a terminal would obey; lines stay lines."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
