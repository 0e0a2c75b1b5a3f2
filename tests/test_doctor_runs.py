"""The doctor and the run that it is asked about: the same checks, on what is left of it too."""

import subprocess
import sys
from pathlib import Path

import finetune
import ingredients
import pytest
from finetune_cases import leave_record, of, tiny_run
from process_cases import ENVIRONMENT, ROOT, TIMEOUT

from paligemma_lib import doctor
from paligemma_lib.doctor import Setup, checks
from paligemma_lib.runtime import launch
from paligemma_lib.train.identity import CHECKPOINTS


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("doctor"))


def test_each_check_stops_the_run_before_it_makes_anything(config, tmp_path, monkeypatch):
    for name in checks.CHECKS:

        def fail(setup, name=name):
            raise ValueError(f"{name} is wrong")

        with monkeypatch.context() as patch:
            patch.setitem(checks.CHECKS, name, fail)
            with pytest.raises(ValueError, match=f"^{name} is wrong"):
                finetune.finetune(of(config, tmp_path / "run"))
        assert list(tmp_path.iterdir()) == []


def test_a_workdir_of_another_run_is_told_before_parameters_are_loaded(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(ingredients, "params_of", lambda *_: pytest.fail("parameters were loaded"))
    before = of(config, tmp_path)
    leave_record(tmp_path / CHECKPOINTS, 4, {"config": doctor.plain(before), "params": "5f0c"})
    assert "GiB" in checks.workdir(doctor.setup_of(before))
    other = of(config, tmp_path, seed=1)
    message = r"holds a run with another configuration, at step 4:\n  config.seed: was 0, is 1\n"
    with pytest.raises(ValueError, match=message):
        checks.workdir(doctor.setup_of(other))
    with pytest.raises(ValueError, match=message):
        finetune.finetune(other)
    assert "GiB" in checks.workdir(doctor.setup_of(of(other, tmp_path, may_differ=("seed",))))


def test_what_a_killed_build_has_left_is_no_data(tmp_path):
    setup = Setup(drawn=40, data_set="flickr8k_tfds", data_dir=str(tmp_path))
    for version, to_come in (("incomplete.H0VW5D_1.0.0", True), ("1.0.0", False)):
        folder = tmp_path / "flickr8k_tfds" / "original" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
        assert setup.data_to_come is to_come


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_each_of_several_processes_looks_and_one_speaks(tmp_path):
    """The second finds that its workdir is a file, as if it were on another machine."""
    (tmp_path / "file").touch()
    meeting = [f"--coordinator=127.0.0.1:{launch._free_port()}", "--processes=2"]
    config = ROOT / "examples" / "configs" / "demo.py"
    command = [sys.executable, "-m", "paligemma_lib.doctor", f"--config={config}", "--cpu"]
    started = [
        subprocess.Popen(
            [*command, f"--config.workdir={workdir}", *meeting, f"--process={number}"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, workdir in enumerate((tmp_path / "run", tmp_path / "file" / "run"))
    ]
    first, second = (process.communicate(timeout=TIMEOUT)[0] for process in started)
    assert [process.returncode for process in started] == [1, 1]
    lines = [line for line in first.splitlines() if line.startswith(("ok ", "FAIL"))]
    assert [line.split()[1] for line in lines] == list(checks.CHECKS)
    assert all(line.startswith("ok ") for line in lines)
    assert "2 processes" in lines[0]
    assert first.splitlines()[-1] == f"1 of {len(checks.CHECKS)} checks failed"
    (told,) = [line for line in second.splitlines() if line.startswith(("ok ", "FAIL"))]
    assert told.startswith("FAIL workdir") and told.endswith("(process 1)")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["file"]
