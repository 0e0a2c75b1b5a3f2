"""README's commands and code run as they stand, one after the other, on a few drawn scenes.

What stands for something of the reader's own is replaced, and runs are made short. .ci/run has the
two commands and the installations; other tests have the web app, the Hub and several machines.
"""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from readme_cases import PAGES, blocks, commands
from readme_desk import Desk, left

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ELSEWHERE = (
    *("pip", "pytest", "pre-commit", "streamlit", "gcloud", "mkdocs", "cd", "docker", "hf"),
    "srun",
)
NOT_HERE = (
    "python examples/finetune.py",  # one of the two commands
    "paligemma finetune",  # the same; both names stand in running text, as do the next two
    "paligemma plan",
    "paligemma serve",
    "python benchmarks/on_accelerator.py --out results",  # wants an accelerator
    "python benchmarks/serving_overload.py",  # ten minutes
    "python benchmarks/train_mask_codec.py vae-oid.npz",  # eight
    "tfds build",  # downloads
    "tfds build --overwrite",  # the same, in running text
    "python tests/fault_driver.py --faults 100",  # an hour; test_faults.py has some of it
    "tfds build --imports=flickr8k_tfds flickr8k_tfds",
)
NEEDS_THE_HUB = ("paligemma push", "--clip google/")  # test_hub_push.py, test_metrics_clip.py
SERVER = ("paligemma serve", "curl")  # the test of the server, below


def runs_here(command) -> bool:
    """Whether a command can be run alone, and is small."""
    text = str(command)
    return not (
        command.words[0] in ELSEWHERE
        or text in NOT_HERE
        or text.startswith(SERVER)
        or any(part in text for part in NEEDS_THE_HUB)
        or "--config=pod" in command.words  # large models
        or "gs://" in text
    )


RUN = {str(command): command.words for command in commands() if runs_here(command)}


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    with contextlib.closing(Desk(tmp_path_factory.mktemp("desk"))) as desk:
        yield desk


@pytest.mark.parametrize("words", RUN.values(), ids=RUN)
def test_a_command_does_what_it_says(words, desk):
    if "--compare" in words:
        for name in ("a.json", "b.json"):
            shutil.copy(desk.folder / "results" / "predictions.json", desk.folder / name)
    printed = desk.run(words)
    for file in left(words):
        assert (desk.folder / file).exists(), file
    assert left(words) or printed


STANDS_FOR_IN_CODE = {
    "google/paligemma/jax/paligemma-3b-mix-224": "nano",
    'pg.load("runs/mine")': 'pg.load("nano")',
    '"paligemma_tokenizer.model"': "pg.captioner.tokenizer_of('nano')",
    "paligemma-3b-pt-224.f16.npz": "nano",
    "image_size=224": "image_size=96",
    "train[:1200]": "train[:20]",
    "batch_size=32": "batch_size=8",
    "for batch in batches:": "for batch in itertools.islice(batches, 2):",
}
# Pages whose code is one program, from top to bottom; another test has those of the other pages.
PROGRAMS = (
    *("README.md", "adapters.md", "index.md", "library.md", "own-data.md", "quantized.md"),
    *("recipes.md", "tasks.md"),
)


def run_code(page, desk: Desk, stands_for: dict[str, str]) -> str:
    """Runs the code of a page; returns what it printed."""
    code = "\n".join(blocks(page, "python"))
    for written, here in stands_for.items():
        code = code.replace(written, here)
    # 3B would be loaded for hours, or train for ever, if something were not replaced.
    assert not re.search(r"3b|1200\]|batches:", code)
    return desk.run(("python", "-c", f"import itertools\n{code}"))


@pytest.mark.parametrize("page", [p for p in PAGES if p.name in PROGRAMS], ids=lambda p: p.name)
def test_the_code_runs_from_top_to_bottom(page, desk):
    printed = run_code(page, desk, STANDS_FOR_IN_CODE)
    if page.name == "library.md":
        assert "at     id token" in printed
        assert (desk.folder / "captioner.npz").is_file()


def test_the_page_of_the_server_tells_how_to_ask_it(desk):
    (page,) = (page for page in PAGES if page.name == "serving.md")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "paligemma_lib", "serve", "--checkpoint=nano"]
    with subprocess.Popen(
        [*command, f"--port={port}"],
        cwd=desk.folder,
        env=desk.environment,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz", server)
            printed = run_code(page, desk, {"127.0.0.1:8000": f"127.0.0.1:{port}"})
            asked = [each.words for each in commands() if each.words[0] == "curl"]
            assert asked and shutil.which("curl")
            for words in asked:
                *options, address = words
                address = address.replace(":8000", f":{port}")
                assert '"caption":' in desk.run((*options, address))
            assert len(printed.splitlines()) == 2  # a caption by the client, and one by the engine
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 143
        finally:
            server.kill()


def wait_for(address: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=60):
            return
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def test_no_page_has_code_that_nothing_runs():
    elsewhere = ("extending.md", "serving.md")  # test_extending.py, and the server above
    assert {p.name for p in PAGES if blocks(p, "python")} == {*PROGRAMS, *elsewhere}
