"""A fault of each kind; `python tests/fault_driver.py` makes as many as one likes."""

import os

import pytest
from fault_driver import KINDS, drive


@pytest.mark.slow
@pytest.mark.timeout(3600)  # a machine may have much else to do
def test_runs_get_through_faults_as_if_there_were_none(tmp_path):
    faults = len(KINDS) - (os.geteuid() != 0)  # a full disk takes a file system of its own
    runs = ("one process", "two processes, NaN, damaged")
    assert drive(tmp_path, faults, seed=7, runs=runs, often=dict.fromkeys(KINDS, 1)) == []
