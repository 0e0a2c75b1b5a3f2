"""Detects where a notebook runs, and prepares it before JAX and TensorFlow are imported.

    here = machine.look()        # Colab, Kaggle or elsewhere; a GPU, a TPU or neither
    machine.prepare(here)        # memory, credentials, TensorFlow off the accelerator
    print(here)                  # Colab with a Tesla T4 of 15.0 GiB, computing in float16

This module imports only the standard library before `prepare` has set what others read.
"""

import dataclasses
import glob
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import MutableMapping
from typing import Any

REPLACED = ("numpy", "jax", "tensorflow")  # packages that an installation may replace
TOKEN = "KAGGLE_API_TOKEN"  # name of the secret, and of the variable that kagglehub reads

_ASK_GPUS = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader")
_BFLOAT16_SINCE = 8.0  # compute capability of the first GPUs that support it in hardware


@dataclasses.dataclass(frozen=True)
class Machine:
    """The machine that a notebook runs on.

    Attributes:
      place: "Colab", "Kaggle" or "this machine".
      kind: "gpu", "tpu" or "cpu".
      device: name of the device, such as "Tesla T4".
      memory: bytes of memory of one device; 0 where it is not known before JAX runs.
      dtype: dtype for activations that suits the device.
    """

    place: str
    kind: str
    device: str
    memory: int
    dtype: str

    def __str__(self) -> str:
        of = f" of {self.memory / 2**30:.1f} GiB" if self.memory else ""
        return f"{self.place} with a {self.device}{of}, computing in {self.dtype}"


def look() -> Machine:
    """Detects the machine without JAX, which must not be imported before `prepare`."""
    place = "this machine"
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # first, since Kaggle sets Colab's variables too
        place = "Kaggle"
    elif "google.colab" in sys.modules:
        place = "Colab"
    if gpus := _gpus():
        device, memory, capability = gpus[0]
        dtype = "bfloat16" if capability >= _BFLOAT16_SINCE else "float16"
        return Machine(place, "gpu", device, memory, dtype)
    if glob.glob("/dev/accel[0-9]*") or "TPU_ACCELERATOR_TYPE" in os.environ:
        device = os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")
        return Machine(place, "tpu", device, 0, "bfloat16")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(place, "cpu", "CPU", memory, "float32")


def prepare(here: Machine) -> None:
    """Sets the variables that JAX, TensorFlow and kagglehub read on import, unless they are set.

    Raises:
      RuntimeError: a package was loaded before another version of it was installed.
    """
    if old := _outdated():
        raise RuntimeError(
            f"old versions are loaded ({', '.join(old)}): restart the session, then run all cells "
            "again"
        )
    settings(here, os.environ)
    if here.place == "Kaggle" and TOKEN not in os.environ and (token := _kaggle_secret()):
        os.environ[TOKEN] = token
    from paligemma_lib.cli.console import load_tensorflow

    load_tensorflow()
    import tensorflow as tf
    import tensorflow_datasets as tfds

    for kind in ("GPU", "TPU"):  # TensorFlow only reads images; JAX needs the memory
        tf.config.set_visible_devices([], kind)
    tfds.disable_progress_bar()


def settings(here: Machine, environment: MutableMapping[str, Any]) -> None:
    """Sets those environment variables that are not set yet."""
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("GCS_READ_CACHE_DISABLED", "1")  # the cache reads 64 MiB at a time
    # The default is three quarters of a GPU's memory. JAX refuses to start if both the old and the
    # new name of this variable are set.
    if here.kind == "gpu" and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in environment:
        environment.setdefault("XLA_CLIENT_MEM_FRACTION", "0.94")


def _gpus() -> list[tuple[str, int, float]]:
    """Returns name, bytes of memory and compute capability of each NVIDIA GPU."""
    try:
        asked = subprocess.run(_ASK_GPUS, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in asked.stdout.splitlines():  # Tesla T4, 15360 MiB, 7.5
        name, memory, capability = line.rsplit(", ", 2)
        gpus.append((name, int(memory.removesuffix(" MiB")) << 20, float(capability)))
    return gpus


def _kaggle_secret() -> str | None:
    """Returns the token from a Kaggle notebook's secrets. (kagglehub reads Colab's by itself.)"""
    try:
        from kaggle_secrets import UserSecretsClient

        return UserSecretsClient().get_secret(TOKEN)
    except Exception:  # the secret is missing, or the notebook lacks access to it
        return None


def _outdated() -> list[str]:
    """Returns the packages that are imported in another version than the one now installed."""
    loaded = {name: sys.modules[name] for name in REPLACED if name in sys.modules}
    return [
        name
        for name, module in loaded.items()
        if module.__version__ != importlib.metadata.version(name)
    ]
