"""The notebook: as committed, and run as on Colab, from a wheel in an environment without it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import paligemma_lib as pg

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "finetune.ipynb"


@pytest.fixture(scope="module")
def committed() -> list[dict]:
    """The cells, as they lie in the file."""
    return json.loads(NOTEBOOK.read_text("utf-8"))["cells"]


@pytest.fixture(scope="module")
def client_library():
    """What runs notebooks: the extra `notebook`."""
    try:
        import ipykernel  # noqa: F401
        import nbclient
    except ModuleNotFoundError:
        pytest.skip("needs nbclient and ipykernel")
    return nbclient


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """What a kernel needs that runs in an environment of its own, where pip finds our wheel."""
    folder = tmp_path_factory.mktemp("fresh")
    python, wheels = folder / "env" / "bin" / "python", folder / "wheels"
    source = folder / "source"  # a build beside the checkout would take over what lies in `build`
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("paligemma_lib", "flickr8k_tfds"):
        shutil.copytree(ROOT / name, source / name)
    for command in (
        [sys.executable, "-m", "pip", "wheel", "--no-deps", f"--wheel-dir={wheels}", str(source)],
        [sys.executable, "-m", "venv", str(folder / "env")],
        [str(python), "-m", "pip", "install", "--quiet", "ipykernel"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if uv := shutil.which("uv"):  # Colab, too, has nearly all that the library needs
        with_python = ["--quiet", f"--python={python}"]
        subprocess.run([uv, "pip", "install", *with_python, *wheels.iterdir()], check=True)
        subprocess.run([uv, "pip", "uninstall", *with_python, "paligemma_lib"], check=True)
    kernel = folder / "kernels" / "fresh" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "fresh", "language": "python"}))
    # pip finds there what the first cell asks for.
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {wheels}".strip()
    environment = os.environ | {"PIP_FIND_LINKS": links, "JUPYTER_PATH": str(folder)}
    # Training takes longer than compiling here, and whoever opens the notebook sets none of these.
    for name in ("PYTHONPATH", "JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS"):
        environment.pop(name, None)
    return environment


@pytest.fixture(scope="module")
def executed(client_library, fresh, tmp_path_factory):
    """The cells after a run from top to bottom, by their ids."""
    import nbformat

    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(NOTEBOOK, folder)
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = client_library.NotebookClient(
        notebook, kernel_name="fresh", resources=place, startup_timeout=300
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", fresh["JUPYTER_PATH"])
        client.execute(env=fresh)
    if "EXECUTED_NOTEBOOK" in os.environ:  # to look at
        nbformat.write(notebook, os.environ["EXECUTED_NOTEBOOK"])
    return {cell.id: cell for cell in notebook.cells}


def text_of(cell) -> str:
    """What a cell has printed, and its values as text."""
    streams = [o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"]
    values = [o.data.get("text/plain", "") for o in cell.outputs if "data" in o]
    return "".join(streams + values)


def shown_by(cell, kind: str) -> list[str]:
    """What a cell shows of a MIME type."""
    return [o.data[kind] for o in cell.outputs if "data" in o and kind in o.data]


def code_of(cells: list[dict]) -> dict[str, str]:
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def test_it_is_committed_without_outputs(committed):
    run = [cell for cell in committed if cell.get("outputs") or cell.get("execution_count")]
    assert run == []


def test_it_installs_this_version(committed):
    assert f'LIBRARY = "paligemma_lib{{extra}}=={pg.__version__}"' in code_of(committed)["install"]


def test_hours_of_training_are_saved(committed):
    assert "pg.run.finetune(" in code_of(committed)["switch"]
    last = committed[-1]
    assert last["id"] == "switch", "what comes before does not train for hours"


def test_it_is_a_valid_notebook(client_library):
    import nbformat

    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))


def test_cells_are_short_and_define_nothing(committed):
    for name, code in code_of(committed).items():
        assert len(code.splitlines()) <= 30, name
        assert not re.search(r"^ *(def|class|import \w+ as np)\b", code, re.M), name


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestRun:
    def test_no_cell_fails_or_warns(self, executed):
        for cell in executed.values():
            for output in cell.get("outputs", ()):
                assert output.output_type != "error", cell.id

    def test_it_says_where_it_runs_and_what_fits(self, executed):
        assert "computing in" in text_of(executed["machine"])
        rows = text_of(executed["fits"]).splitlines()[1:]
        assert rows
        assert all(re.search(r"GiB +(fits|does not fit) ", row) for row in rows)

    def test_it_explains_examples(self, executed):
        (described,) = shown_by(executed["batch"], "text/html")
        assert "suffix 5" in described
        assert shown_by(executed["images"], "image/png")
        (mask,) = shown_by(executed["mask"], "text/html")
        assert mask.count("<rect") > 100
        (table,) = shown_by(executed["model"], "text/html")
        assert "trains" in table

    def test_the_live_curve_ends_with_both_losses_and_captions(self, executed):
        *_, live = shown_by(executed["train"], "text/html")
        assert re.search(r"<p>step (\d+) of \1, ", live)
        assert live.count("<polyline") == 2
        assert live.count("<img") == 2
        assert len(re.findall(r"step \d+</small> \w+", live)) == 8

    def test_training_helps(self, executed):
        (change,) = re.findall(r"CIDEr +([\d.]+) -> ([\d.]+)", text_of(executed["scores"]))
        assert float(change[1]) > float(change[0]) + 0.1

    def test_what_was_saved_captions_new_images(self, executed):
        assert "nano_finetuned.params.f16.npz" in text_of(executed["reload"])
        assert shown_by(executed["own"], "image/png")
        lines = text_of(executed["beams"]).splitlines()
        assert len(lines) == 4
        assert all(re.fullmatch(r" +[\d.]+%  \w.*", line) for line in lines)
