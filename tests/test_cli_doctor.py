"""The doctor and the run that it is asked about: the same checks, on what is left of it too."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from finetune_cases import finetune, leave_record, of, setup_of, tiny_run, write_config
from process_cases import ENVIRONMENT, TIMEOUT

from paligemma_lib.cli import doctor, main
from paligemma_lib.run import DataConfig, RunConfig, Setup, checks, prepare
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
            with pytest.raises(ValueError, match=f"a check fails:\n  {name}: {name} is wrong$"):
                finetune(of(config, tmp_path / "run"))
        assert list(tmp_path.iterdir()) == []


def test_a_workdir_of_another_run_is_told_before_parameters_are_loaded(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(prepare, "load_params", lambda *_: pytest.fail("parameters were loaded"))
    before = of(config, tmp_path)
    leave_record(
        tmp_path / CHECKPOINTS, 4, {"config": setup_of(before).config.to_dict(), "params": "5f0c"}
    )
    assert "GiB" in checks.workdir(setup_of(before))
    other = of(config, tmp_path, seed=1)
    message = r"holds a run with another configuration, at step 4:\n  config.seed: was 0, is 1\n"
    with pytest.raises(ValueError, match=message):
        checks.workdir(setup_of(other))
    with pytest.raises(ValueError, match=message):
        finetune(other)
    assert "GiB" in checks.workdir(setup_of(of(other, tmp_path, may_differ=("seed",))))


def test_what_a_killed_build_has_left_is_no_data(tmp_path):
    data = DataConfig(kind="sample", name="40")
    setup = Setup(RunConfig(workdir=str(tmp_path), data=data))
    for version, to_come in (("incomplete.H0VW5D_1.0.0", True), ("1.0.0", False)):
        folder = tmp_path / "tfds-40" / "flickr8k_tfds" / "original" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").touch()
        assert setup.data_to_come is to_come


@pytest.fixture
def said(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "TIMEOUT", 60.0)

    def run(*words):
        code = main(["doctor", *words])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_alone_it_looks_at_the_demo(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines = said()
    assert code == 0, lines
    assert lines[-1] == "everything is in place"
    assert [line.split()[1] for line in lines[:-1]] == list(checks.CHECKS)
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert any("nano.params.f16.npz" in line for line in lines)
    assert any("1,500 pictures, to be drawn" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_everything_that_fails_is_told(said, config, tmp_path):
    file = write_config(of(config, tmp_path / "run"), tmp_path / "config.py")
    code, lines = said(f"--config={file}", "--config.text_len=8")
    assert code == 1
    assert lines[-1] == f"1 of {len(checks.CHECKS)} checks failed"
    assert [line.split()[1] for line in lines if line.startswith("FAIL")] == ["texts"]
    code, lines = said(f"--config={file}", "--config.text_len=8", "--config.data.test=no.jsonl")
    assert [line.split()[1] for line in lines if line.startswith("FAIL")] == ["data", "texts"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--confg=x.py"], ["--config.batch_siz=3"], ["--checkpoint=a"]])
def test_wrong_commands(words, capsys):
    assert main(["doctor", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_takes_seconds(tmp_path):
    command = [sys.executable, "-m", "paligemma_lib", "doctor", "--cpu"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, f"--config.workdir={tmp_path}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    # Of the processor, since this machine does other things besides.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_each_of_several_processes_looks_and_one_speaks(tmp_path):
    """The second finds that its workdir is a file, as if it were on another machine."""
    (tmp_path / "file").touch()
    meeting = [f"--coordinator=127.0.0.1:{launch._free_port()}", "--processes=2"]
    command = [sys.executable, "-m", "paligemma_lib", "doctor", "--config=demo", "--cpu"]
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
