"""The command itself: help that fits a screen, exit codes, and errors in a line."""

import importlib
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from process_cases import ENVIRONMENT

import paligemma_lib as pg
from paligemma_lib.cli import main, show
from paligemma_lib.cli.main import COMMANDS
from paligemma_lib.cli.parser import Parser
from paligemma_lib.run.config import RunConfig
from paligemma_lib.run.export import tell
from paligemma_lib.run.options import options_of


def module_of(name):
    return importlib.import_module(f"paligemma_lib.cli.{name.replace('-', '_')}")


def test_alone_it_lists_its_commands(capsys):
    assert main([]) == 2
    out = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == out
    assert [name for name in COMMANDS if f"\n  {name} " not in out] == []


def test_it_says_which_version_it_is(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"paligemma_lib {pg.__version__}\n"


def test_a_command_that_is_like_another(capsys):
    assert main(["finetun"]) == 2
    assert "did you mean finetune?" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2
    assert "commands are finetune, caption" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen(name, capsys):
    assert main([name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_two_examples_that_are_understood(name):
    module = module_of(name)
    examples = re.findall(r"^  paligemma (\S+)(.*)$", module.__doc__, re.MULTILINE)
    assert len(examples) >= 2
    for command, rest in examples:
        assert command == name
        words = rest.partition("#")[0].split()
        if "--config=my.py" not in words:
            parser = Parser(f"paligemma {name}", "")
            module.configure(parser)
            parser.read(words)


@pytest.mark.parametrize("name", ["finetune", "doctor", "plan", "sweep"])
def test_help_lists_all_options_of_a_run(name, capsys):
    main([name, "--help"])
    out = capsys.readouterr().out
    for option in options_of(RunConfig):
        assert f"{option.name.rpartition('.')[2]}=" in out, option.name


def test_help_tells_of_fields(capsys):
    assert main(["finetune", "--help", "optimizer.learning_rate"]) == 0
    out = capsys.readouterr().out
    assert out == ("--config.optimizer.learning_rate=5e-05\n    peak learning rate (> 0)\n")
    main(["finetune", "--help", "all"])
    out = capsys.readouterr().out
    assert all(f"--config.{option.name}=" in out for option in options_of(RunConfig))
    main(["finetune", "--help", "xyzzy"])
    assert "unknown field xyzzy" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--colour=red"], ["--config.epoch=1"], ["--config=none"]])
def test_what_is_asked_wrongly_is_told_without_the_usage(words, capsys):
    assert main(["finetune", *words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("paligemma finetune: ") and "usage" not in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("no such thing"), 1, "no such thing"),
        (FileNotFoundError(2, "gone", "a.npz"), 1, "[Errno 2] gone: 'a.npz'"),
        (ImportError("needs gcsfs"), 1, "needs gcsfs"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "the device has too little memory"),
        (ValueError("a\x1b[31m name"), 1, "a\\x1b[31m name"),
        (KeyboardInterrupt(), 130, "stopped"),
        (SystemExit(143), 143, ""),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(error, code, line, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(show, "run", fail)
    assert main(["show", "nano"]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"paligemma show: {line}") if line else not err
    assert "Traceback" not in err


def test_what_is_printed_cannot_command_a_terminal(monkeypatch, capsys):
    name = "a\x1b[31m.npz"
    assert main([name]) == 2
    monkeypatch.setattr(show, "described", lambda path, model: f"{path}: nano\n3 parameters")
    assert main(["show", name]) == 0
    place = "paligemma_lib.checkpoint.conversion"
    monkeypatch.setattr(f"{place}.convert", lambda *args: None)
    result = SimpleNamespace(is_finite=False)
    monkeypatch.setattr(f"{place}.compare_checkpoints", lambda *args: result)
    assert main(["convert", name, name]) == 1
    report: Any = SimpleNamespace(
        summary=[name],
        scores=[SimpleNamespace(name="CIDEr", before=None, value=0.0, low=0.0, high=0.0)],
        examples=[],
        warnings=[name],
    )
    tell(report)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and (out + err).count(r"a\x1b[31m.npz") == 7
    assert r"a\x1b[31m.npz: nano" in out and "\n3 parameters" in out


def test_a_fault_of_the_program_keeps_its_traceback_and_v_shows_all(monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr(show, "run", fail)
    error = TypeError("a fault")
    with pytest.raises(TypeError):
        main(["show", "nano"])
    error = ValueError("of a user")
    with pytest.raises(ValueError, match="of a user"):
        main(["show", "nano", "-v"])


def of_process(*words: str) -> subprocess.CompletedProcess:
    """In a process of its own, in which nothing has been loaded."""
    return subprocess.run(
        [sys.executable, "-m", "paligemma_lib", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.mark.slow
def test_nothing_of_other_libraries_is_printed():
    quiet = of_process("caption", "--max-new-tokens=2")
    assert quiet.returncode == 0
    assert len(quiet.stdout.splitlines()) == 12
    (ours,) = quiet.stderr.splitlines()
    assert ours.startswith("warning: 12 of 12 captions (100%) are cut off after 2 tokens")


def test_help_and_version_are_instant_and_load_nothing_large():
    program = (
        "import sys\nfrom paligemma_lib.cli import main\nmain(['--version'])\nmain(['--help'])\n"
        "print(sorted({'tensorflow', 'jax', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
