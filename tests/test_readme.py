"""README and docs keep their word: commands, configs, code, quoted messages and links are real."""

import argparse
import ast
import importlib
import importlib.util
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from readme_cases import (
    PAGES,
    ROOT,
    TROUBLES,
    anchors,
    blocks,
    commands,
    links,
    messages,
    quoted_messages,
)

import paligemma_lib as pg
from paligemma_lib.cli.parser import Parser, explained

SOURCES = ("paligemma_lib", "flickr8k_tfds", "examples")


class Parsed(Exception):
    """Raised where a script's options were understood."""


@pytest.fixture
def parse_only(monkeypatch):
    """Runs a script until it has parsed its options; returns them."""

    def run(path: Path, words):
        with monkeypatch.context() as patch, pytest.raises(Parsed) as parsed:
            patch.setattr(sys, "argv", [str(path), *words])
            patch.syspath_prepend(str(path.parent))
            for name in ("parse_args", "parse_intermixed_args"):
                whole = getattr(argparse.ArgumentParser, name)
                patch.setattr(argparse.ArgumentParser, name, parse_with(whole))
            runpy.run_path(str(path), run_name="__main__")
        return parsed.value.args[0]

    def parse_with(whole):
        def parse(*args, **kwargs):
            raise Parsed(whole(*args, **kwargs))

        return parse

    return run


def check(words, parse_only) -> None:
    """Fails where a command names what does not exist."""
    match words:
        case ("paligemma", name, *rest):
            command = importlib.import_module(f"paligemma_lib.cli.{name.replace('-', '_')}")
            parser = Parser(f"paligemma {name}", "")
            command.configure(parser)
            if "--help" in rest:
                assert all(explained(word) for word in rest[1:])
            else:
                parser.read(rest)
        case ("python", "examples/finetune.py", *rest):
            check(("paligemma", "finetune", *rest), parse_only)
        case ("python", "-m", module, *rest):
            args = parse_only(ROOT.joinpath(*module.split(".")).with_suffix(".py"), rest)
            check(("python", args.script, *args.arguments), parse_only)
        case ("python", script, *rest):
            assert (ROOT / script).is_file(), script
            parse_only(ROOT / script, rest)
        case ("streamlit", "run", script, *rest):
            texts = messages(str(ROOT / "examples")).split("\0")
            assert (ROOT / script).is_file(), script
            assert all(word in texts for word in rest if word.startswith("--") and len(word) > 2)
        case ("tfds", "build", *rest):
            spec = importlib.util.find_spec("tensorflow_datasets")
            files = (Path(spec.origin).parent / "scripts" / "cli").glob("*.py")
            fields = "".join(file.read_text("utf-8") for file in files)  # options are fields there
            for word in rest:
                name = word.partition("=")[0].removeprefix("--")
                assert not word.startswith("-") or re.search(rf"^ +{name}: ", fields, re.M), word
        case ("pip", "install", "-e", what, *rest):
            assert not rest or (rest[0] == "-c" and (ROOT / rest[1]).is_file())
            extras = re.findall(r"\w+", what)
            assert set(extras) <= extras_of_setup()
        case ("pytest", *rest):
            configuration = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
            markers = configuration["tool"]["pytest"]["ini_options"]["markers"]
            named = set(" ".join(rest).split()) - {"-m", "and", "not"}
            assert all(any(m.startswith(word) for m in markers) for word in named)
        case ("srun", *rest):
            check(tuple(rest), parse_only)
        case ("gcloud" | "pre-commit" | "mkdocs" | "cd" | "hf" | "openssl", *_):
            pass  # not ours
        case ("curl", *_, address):
            pytest.importorskip("starlette", reason="needs starlette")
            from paligemma_lib.serving.endpoint.openapi import document

            assert address.removeprefix("http://127.0.0.1:8000") in document()["paths"]
        case ("docker", "build", *_):
            assert (ROOT / "Dockerfile").is_file()
        case ("docker", "run", *rest):
            (image,) = [word for word in rest if word.partition(":")[0] == "paligemma"]
            check(("paligemma", "serve", *rest[rest.index(image) + 1 :]), parse_only)
        case _:
            pytest.fail(f"{words}: tell this test how to check it, or take it out")


def extras_of_setup() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXTRAS"
    )
    return {ast.literal_eval(name) for name in value.keys}


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_names_files_and_options_that_exist(command, parse_only):
    check(command.words, parse_only)


@pytest.mark.parametrize(
    "command",
    [
        "python examples/none.py",
        "paligemma caption --colour red",
        "paligemma predict a.jpg",
        "paligemma finetune --config.epoch=1",
        "python examples/finetune.py --config.epochs=few",
        "paligemma finetune --config=none",
        "python examples/finetune.py --gpu",
        "tfds build flickr8k_tfds --manual=FOLDER",
        "pip install -e .[everything]",
        "pytest -m fast",
    ],
)
def test_a_wrong_command_would_be_noticed(command, parse_only):
    with pytest.raises((AssertionError, SystemExit, ValueError, OSError, ImportError)):
        check(tuple(command.split()), parse_only)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_compiles_and_names_what_the_library_has(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pg."):
                found = pg
                for name in ast.unparse(node).split(".")[1:]:
                    assert hasattr(found, name), ast.unparse(node)
                    found = getattr(found, name)


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`pg\.[\w.]+", "".join(p.read_text("utf-8") for p in PAGES))))
)
def test_running_text_names_what_the_library_has(name):
    found = pg
    for part in name.rstrip(".").split(".")[1:]:
        found = getattr(found, part)


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_is_one_of_ours_or_of_jax(message):
    bridge = Path(importlib.util.find_spec("jax").origin).parent / "_src" / "xla_bridge.py"
    texts = [messages(str(ROOT / folder)) for folder in SOURCES] + [messages(str(bridge))]
    assert any(message in text for text in texts)


def test_the_table_of_troubles_was_read():
    rows = [line for line in TROUBLES.read_text("utf-8").splitlines() if line.startswith("|")]
    assert len(quoted_messages()) == len(rows) - 2 >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
