"""The notebook: as committed, and run from top to bottom."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "notebook" / "finetune.ipynb"


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
def executed(client_library, tmp_path_factory):
    """The cells after a run from top to bottom, by their ids."""
    import nbformat

    folder = tmp_path_factory.mktemp("notebook") / "examples"
    leave = shutil.ignore_patterns("__pycache__", "workdir")
    shutil.copytree(NOTEBOOK.parent, folder, ignore=leave)
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = client_library.NotebookClient(
        notebook, kernel_name="python3", resources=place, startup_timeout=300
    )
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
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
        assert "everything is installed" in text_of(executed["machine"])
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
