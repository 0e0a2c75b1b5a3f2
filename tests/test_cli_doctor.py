"""`paligemma doctor`: a line for each check, exit codes, and each of several processes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from process_cases import ENVIRONMENT, ROOT, TIMEOUT
from run_cases import write_run

from paligemma_lib.cli import doctor, main
from paligemma_lib.run import checks
from paligemma_lib.runtime import launch


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def said(capsys, monkeypatch, tmp_path):
    """Runs the command in an empty folder."""
    monkeypatch.setattr(doctor, "TIMEOUT", 60.0)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        code = main(["doctor", *argv])
        return code, capsys.readouterr().out.splitlines()

    return run


def failed(lines):
    return [line.split()[1] for line in lines if line.startswith("FAIL")]


def test_without_arguments_the_demo_and_so_the_installation_is_looked_at(said, tmp_path):
    code, lines = said()
    assert code == 0, lines
    assert lines[-1] == "everything is in place"
    assert [line.split()[1] for line in lines[:-1]] == list(checks.CHECKS)
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert any("nano.params.f16.npz" in line for line in lines)
    assert any("1,500 images, to be drawn" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_names_is_looked_at(said, tiny, tmp_path):
    folder = tiny.data.train
    words = [f"--config.data.{split}={folder}" for split in ("train", "validation", "test")]
    words += [
        f"--config.model.checkpoint={tiny.model.checkpoint}",
        f"--config.model.tokenizer={tiny.model.tokenizer}",
        f"--config.workdir={tmp_path}",
        "--config.data.kind=folder",
        "--config.batch_size=4",
    ]
    code, lines = said(*words)
    assert code == 0, lines
    assert any("train 12, validation 12, test 12 images" in line for line in lines)
    code, lines = said(*words, "--config.text_len=8")
    assert code == 1
    assert lines[-1] == f"1 of {len(checks.CHECKS)} checks failed"
    assert failed(lines) == ["texts"]


def test_a_file_of_a_config_and_changes_of_it(said, capsys, tmp_path):
    config = ROOT / "examples" / "configs" / "demo.py"
    workdir = f"--config.workdir={tmp_path / 'run'}"
    code, lines = said(f"--config={config}", workdir)
    assert code == 0, lines
    assert any("1,500 images, to be drawn" in line for line in lines)
    uneven = ["--config.batch_size=33", "--config.microbatches=2"]
    assert main(["doctor", f"--config={config}", workdir, *uneven]) == 2
    assert "batch_size=33: expected a multiple of microbatches" in capsys.readouterr().err
    code, lines = said(f"--config={config}", workdir, "--config.stages[0].trainable=lorry")
    assert code == 1
    assert failed(lines) == ["trainable", "memory", "workdir"]
    assert sum("same error as trainable" in line for line in lines) == 2  # the same cause
    assert lines[-1] == f"3 of {len(checks.CHECKS)} checks failed"
    assert not (tmp_path / "run").exists()


def test_a_control_character_does_not_reach_the_terminal(said, tmp_path):
    code, lines = said("--config.model.checkpoint=no\x1b[31mwhere.npz")
    assert code == 1
    assert "\x1b" not in "".join(lines) and r"no\x1b[31mwhere.npz" in "".join(lines)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--confg=x.py"], "--confg=x.py"),
        (["--batch-size=3"], "--batch-size=3"),
        (["--config=a.py"], "no such file or recipe"),
        (["--config.batch_siz=3"], "unknown field; did you mean batch_size?"),
        (["--config.batch_size=many"], "batch_size='many': expected a valid integer"),
        (["--processes=many"], "invalid int value: 'many'"),
        (["more"], "more"),
    ],
)
def test_what_is_asked_wrongly(words, told, capsys):
    assert main(["doctor", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err and "see paligemma doctor --help" in err
    assert "Traceback" not in err and len(err.splitlines()) <= 4


def test_all_wrong_fields_are_told_at_once(capsys):
    words = ["--config.batch_siz=3", "--config.epochs=-1", "--config.data.kind=csv"]
    assert main(["doctor", *words]) == 2
    err = capsys.readouterr().err
    assert "demo has 3 problems:" in err
    assert "batch_siz:" in err and "epochs=-1.0:" in err and "data.kind='csv':" in err


@pytest.mark.slow
def test_the_command_takes_seconds_and_other_libraries_say_nothing(tmp_path):
    command = [sys.executable, "-m", "paligemma_lib", "doctor", "--config=demo", "--cpu"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*command, f"--config.workdir={tmp_path}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(checks.CHECKS) + 1
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
