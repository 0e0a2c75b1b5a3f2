"""Some random faults; `python tests/fault_driver.py` makes as many as one likes."""

import pytest
from fault_driver import drive


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_get_through_faults_as_if_there_were_none(tmp_path):
    assert drive(tmp_path, faults=3, seed=7, runs=("one process", "two processes")) == []
