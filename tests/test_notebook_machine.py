"""Where a notebook runs: Colab, Kaggle or elsewhere, and what is set there."""

import dataclasses
import subprocess
import sys
import types

import pytest

from paligemma_lib.notebook import machine

T4 = "Tesla T4, 15360 MiB, 7.5\n"
A100 = "NVIDIA A100-SXM4-40GB, 40960 MiB, 8.0\n"
CPU = machine.Machine("this machine", "cpu", "CPU", 1 << 34, "float32")


@pytest.fixture
def alone(monkeypatch):
    """Neither Colab nor Kaggle, no accelerators."""
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "_gpus", list)
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: [])


@pytest.fixture
def says(monkeypatch):
    """Lets nvidia-smi answer; an error stands for its absence."""

    def answer(stdout: str) -> None:
        def run(command, **_):
            assert command[0] == "nvidia-smi"
            if not stdout:
                raise FileNotFoundError(command[0])
            return types.SimpleNamespace(stdout=stdout)

        monkeypatch.setattr(subprocess, "run", run)

    return answer


def test_a_machine_without_accelerators_computes_in_float32(alone):
    here = machine.look()
    assert (here.place, here.kind, here.dtype) == ("this machine", "cpu", "float32")
    assert here.memory > 1 << 30


def test_kaggle_is_not_taken_for_colab_whose_variables_it_has(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert machine.look().place == "Colab"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert machine.look().place == "Kaggle"


@pytest.mark.parametrize(
    "answer, dtype, said",
    [
        (T4 + T4, "float16", "this machine with a Tesla T4 of 15.0 GiB, computing in float16"),
        (A100, "bfloat16", "this machine with a NVIDIA A100-SXM4-40GB of 40.0 GiB, "
         "computing in bfloat16"),
    ],
)  # fmt: skip
def test_a_gpu_says_its_memory_and_suits_a_type(says, monkeypatch, answer, dtype, said):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    says(answer)
    here = machine.look()
    assert (here.kind, here.dtype) == ("gpu", dtype)
    assert str(here) == said


def test_without_nvidias_program_there_is_no_gpu(says):
    says("")
    assert machine._gpus() == []


def test_a_tpu_computes_in_bfloat16(alone, monkeypatch):
    monkeypatch.setattr(machine.glob, "glob", lambda pattern: ["/dev/accel0"])
    assert (machine.look().kind, machine.look().dtype) == ("tpu", "bfloat16")


def test_settings_leave_what_is_set(alone):
    environment = {"TF_CPP_MIN_LOG_LEVEL": "0"}
    machine.settings(dataclasses.replace(CPU, kind="gpu"), environment)
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert environment["XLA_CLIENT_MEM_FRACTION"] == "0.94"


def test_settings_never_give_jax_both_names_of_its_share():
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
    machine.settings(dataclasses.replace(CPU, kind="gpu"), environment)
    assert "XLA_CLIENT_MEM_FRACTION" not in environment


def test_memory_of_a_cpu_is_not_divided():
    environment: dict[str, str] = {}
    machine.settings(CPU, environment)
    assert not any("MEM_FRACTION" in name for name in environment)


def test_a_package_that_runs_in_an_old_version_asks_for_a_restart(monkeypatch):
    monkeypatch.setattr(machine, "REPLACED", ("numpy",))
    monkeypatch.setitem(sys.modules, "numpy", types.SimpleNamespace(__version__="1.0"))
    with pytest.raises(
        RuntimeError, match=r"old versions are loaded \(numpy\): restart the session"
    ):
        machine.prepare(CPU)
