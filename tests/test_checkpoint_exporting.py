"""Files of parameters are there whole or not at all, whatever happens while they are written."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from checkpoint_cases import PARAMS, run

from paligemma_lib.checkpoint import save_params


@pytest.fixture
def path(tmp_path):
    return tmp_path / "params.npz"


def test_places_that_cannot_be_written_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder; create it"):
        save_params(tmp_path / "no" / "a.npz", PARAMS)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        (tmp_path / "a.npz").mkdir()
        save_params(tmp_path / "a.npz", PARAMS)


FULL = """
import resource, sys
import model_cases as cases
from paligemma_lib.checkpoint import save_params
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save_params(sys.argv[1], cases.random_params(cases.tiny_config(2)))
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_file(path):
    path.write_bytes(b"old")
    message = run(FULL, path)
    expected = r"could not be written \(.*it needs [\d,]{7,} bytes, and [\d,]+ are free.* unchanged"
    assert re.search(expected, message), message
    assert os.listdir(path.parent) == ["params.npz"]
    assert path.read_bytes() == b"old"


KILLED = """
import sys, time
import numpy as np
from paligemma_lib.checkpoint import exporting, save_params
def slow(name, array, dtype):
    for row in np.asarray(array):
        yield row
        print("row", flush=True)
        time.sleep(0.2)
exporting.to_host = slow
save_params(sys.argv[1], {"w": np.ones((1000, 100_000), np.float32)})
"""


def test_a_killed_process_leaves_the_old_file_whole(path):
    save_params(path, PARAMS)
    before = path.read_bytes()
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "row\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    partial = [name for name in os.listdir(path.parent) if name != path.name]
    assert len(partial) == 1 and partial[0].endswith(".partial")
