"""Options and fixtures for all tests."""

import os
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow imports Keras 3 when it is imported, which took 5 of 12 seconds, in every process. It
# goes on without when it is told to use Keras 2, which is not installed. Nothing here uses either.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "true")

TESTS = Path(__file__).resolve().parent

# Compiling takes most of the time: XLA's optimizations make it twice as long, and pay in none of
# these small models. Tests and the programs that they start compile the same.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# JAX 0.10 can still emit its loops as it did before, which compiles more than twice as fast; with
# later ones the flag is an error.
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    )
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(TESTS.parent / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

SHARED = TESTS.parents[1] / "shared"

# What may be absent even where everything that can be installed is.
_EXCUSED = (
    "needs a big_vision checkout",
    # What .ci/run has in environments of their own.
    "needs transformers and torch",
    "needs pycocoevalcap",
    "needs streamlit",
    "needs wandb",
    "needs mlflow",
    "needs trackio",
    "needs pycocotools",
    "needs playwright",
    "needs nbclient",
    "needs libtpu",
    "needs mypy",
    "needs basedpyright",
    "Not a test.",  # TensorFlow's own
    # Data beside the checkout, which a clone has not.
    *(["needs ../shared"] if "GITHUB_ACTIONS" in os.environ else []),
)


def pytest_addoption(parser):
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="fail when a test was skipped that could have run (for continuous integration)",
    )


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not session.config.getoption("--fail-on-skip") or reporter is None:
        return
    reasons = [str(report.longrepr[2]) for report in reporter.stats.get("skipped", [])]
    unexcused = [r for r in reasons if not r.removeprefix("Skipped: ").startswith(_EXCUSED)]
    if unexcused and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"--fail-on-skip: {len(unexcused)} skipped: {unexcused}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Processes send reports as UTF-8, which has no lone surrogates; odd names of files do."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True, scope="module")
def freed_programs():
    """Frees what JAX has compiled: with thousands of programs in a process, XLA has crashed."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data that may lie beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hugging Face Hub, on this machine."""
    from hub_server import hub_here

    with hub_here(monkeypatch, tmp_path / "home") as server:
        yield server


@pytest.fixture
def dogs(hub):
    """An empty data set of the Hub."""
    return hub.add("datasets/somebody/dogs")


@pytest.fixture
def strict_promotion():
    """Lets no type be widened silently."""
    import jax

    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def optimized():
    """Compiles as for users, where tests spare XLA the work."""
    import jax

    spared = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", spared)


@pytest.fixture
def run_on_devices():
    """Runs a program on that many virtual CPU devices; returns what it printed."""

    def run(devices: int, program: str, timeout: float = 300) -> str:
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        )
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags,
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        }
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    return run
