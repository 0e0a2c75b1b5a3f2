"""Options and fixtures for all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHARED = Path(__file__).resolve().parents[2] / "shared"

# What may be absent even where everything that can be installed is.
_EXCUSED = (
    "needs a big_vision checkout",
    "needs transformers and torch",  # which .ci/run has in an environment of their own
    "Not a test.",  # TensorFlow's own
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


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data that may lie beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED
