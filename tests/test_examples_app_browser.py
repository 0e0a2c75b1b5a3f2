"""The web app as a visitor meets it: a real server and a real browser, Debian's `chromium`.

Screenshots go to the folder named by SCREENSHOTS, if it is set.
"""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import captioning_cases as cases
import numpy as np
import pytest
from PIL import Image

from paligemma_lib import sample_data

try:
    import streamlit  # noqa: F401
except ModuleNotFoundError:
    pytest.skip("needs streamlit", allow_module_level=True)
try:
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ModuleNotFoundError:
    pytest.skip("needs playwright", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "<img src=x onerror=document.title='owned'>.jpg"
TIMEOUT = 600_000  # milliseconds, for machines that have much else to do


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a tiny model, in which the server runs and finds its home."""
    folder = tmp_path_factory.mktemp("server")
    cases.write_captioner(folder)
    (folder / "temporary").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(files) -> Iterator[str]:
    """The address of the app with the tiny model."""
    model = {
        "PALIGEMMA_CHECKPOINT": str(files / "tiny.npz"),
        "PALIGEMMA_TOKENIZER": str(files / "tiny.model"),
    }
    with running(files, model) as address:
        yield address


@contextlib.contextmanager
def running(folder: Path, model: dict[str, str]) -> Iterator[str]:
    """Runs the app in a folder; gives its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "HOME": str(folder),
        "TMPDIR": str(folder / "temporary"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **model,
    }
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "examples" / "app" / "app.py")]
    command += [f"--server.port={port}", "--server.headless=true"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while not listening_at(port):
            assert process.poll() is None, (folder / "log").read_text("utf-8", "replace")
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(60)


def listening_at(port: int) -> list[str]:
    """The addresses at which something listens to this port, as the kernel writes them."""
    lines = [
        line.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if os.path.exists(table)
        for line in Path(table).read_text("ascii").splitlines()[1:]
    ]
    ends = [fields[1].split(":") for fields in lines if fields[3] == "0A"]
    return [address for address, number in ends if int(number, 16) == port]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    program = program or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        with playwright.chromium.launch(executable_path=program, args=arguments) as browser:
            yield browser


@pytest.fixture
def visit(browser, server):
    """Opens the page in a window of its own, and waits until the model is ready."""
    contexts, asked_for = [], []

    def visit(width: int = 1280, height: int = 1400, colours: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=colours
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        page = context.new_page()
        page.on("request", lambda request: asked_for.append(request.url))
        page.goto(server)
        expect(page.get_by_role("heading", name="Captions for images")).to_be_visible()
        expect(page.get_by_text("px: ready")).to_be_visible()
        expect(page.get_by_role("checkbox")).to_have_count(6)
        return page

    yield visit
    for context in contexts:
        context.close()
    local = (server, server.replace("http", "ws"), "data:", "blob:")
    assert [url for url in asked_for if not url.startswith(local)] == []


def screenshot(page: Page, name: str) -> np.ndarray:
    """uint8[H, W, 3]; also kept if SCREENSHOTS says where."""
    page.wait_for_timeout(1000)
    data = page.screenshot()
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(data)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def upload(page: Page, *named: tuple[str, bytes]) -> None:
    page.locator("input[type=file]").set_input_files(
        [{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in named]
    )


@pytest.fixture(scope="module")
def photograph(tmp_path_factory) -> bytes:
    """Of the size that cameras make, with a camera's kind of compression."""
    folder = sample_data.write_scenes(tmp_path_factory.mktemp("scenes") / "scenes", count=1)
    (path,) = (folder / "Images").iterdir()
    file = io.BytesIO()
    Image.open(path).resize((3000, 2000)).save(file, "JPEG", quality=90)
    return file.getvalue()


def test_a_visit(visit, server, files, photograph):
    page = visit()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    expect(page.get_by_text("No captions yet")).to_be_visible()
    screenshot(page, "empty-light")

    upload(page, ("holiday.jpg", photograph))
    page.get_by_role("button", name="Caption the image").click()
    expect(page.get_by_role("heading", name="Captions of this visit")).to_be_visible()
    expect(page.locator(".answer .caption")).to_have_count(1)
    expect(page.locator(".answer .facts")).to_contain_text("greedy")
    screenshot(page, "caption-light")

    page.get_by_text("Beam search", exact=True).click()
    expect(page.get_by_role("slider", name="Beams")).to_be_visible()
    page.get_by_role("button", name="Caption the image").click()
    expect(page.locator(".answer .beams li")).to_have_count(4)
    shares = page.locator(".answer .beams .share").all_inner_texts()
    assert all("%" in share or "1 in" in share or "next to" in share for share in shares)
    screenshot(page, "beams-light")

    upload(page, ("notes.jpg", b"dear diary, <b>nothing</b> happened"), (HOSTILE, photograph))
    expect(page.get_by_role("alert").filter(has_text="This is a text file")).to_be_visible()
    page.get_by_role("button", name="Caption 2 images").click()  # holiday.jpg is still there
    expect(page.locator(".answer .beams")).to_have_count(3)
    expect(page.get_by_role("button", name="Caption 2 images")).to_be_visible()
    expect(page.locator(".answer .name").filter(has_text=HOSTILE)).to_be_visible()
    screenshot(page, "refused-light")
    assert page.title() == "PaliGemma captions"
    assert page.locator(".stHtml img").count() == 0

    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    table = download.value.path().read_text("utf-8")
    assert table.startswith("image,caption,probability,")
    assert table.count("\n") == 5
    assert errors == []
    without_names = page.evaluate(
        "[...document.querySelectorAll('img:not([alt])')].map((e) => e.outerHTML)"
    )
    assert without_names == []

    assert listening_at(int(server.rpartition(":")[2])) in (
        ["0100007F"],
        ["00000000000000000000000001000000"],
    )
    assert list((files / "temporary").rglob("*.jpg")) == []
    kept = [path for path in files.rglob("*") if path.is_file() and photograph in path.read_bytes()]
    assert kept == []


def test_a_dark_page_on_a_telephone_with_a_keyboard(visit):
    page = visit(390, 1400, "dark")
    sample = page.get_by_role("checkbox", name="Sea")
    sample.focus()
    page.keyboard.press("Space")
    expect(sample).to_be_checked()
    expect(page.get_by_label("Prompt")).to_have_value("caption en")
    button = page.get_by_role("button", name="Caption the image")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_alt_text("sea.jpg: ")).to_be_visible()
    pixels = screenshot(page, "caption-dark-narrow")
    assert tuple(pixels[-3, 3]) == (0x13, 0x15, 0x18)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_button_and_the_first_caption_are_in_sight_with_many_images(
    visit, photograph, width, height, colours
):
    page = visit(width, height, colours)
    upload(page, *((f"{number}.jpg", photograph) for number in range(12)))
    button = page.get_by_role("button", name="Caption 12 images")
    expect(button).to_be_enabled()
    expect(button).to_be_in_viewport(ratio=1)
    screenshot(page, f"twelve-{colours}-{width}")
    button.click()
    expect(page.locator(".answer .facts")).to_have_count(12)
    page.locator(".masthead").scroll_into_view_if_needed()
    expect(button).to_be_in_viewport(ratio=1)
    expect(page.locator(".answer .caption").first).to_be_in_viewport(ratio=1)
    screenshot(page, f"twelve-captions-{colours}-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_caption_is_copied(visit, photograph):
    page = visit()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    upload(page, ("holiday.jpg", photograph))
    page.get_by_role("button", name="Caption the image").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator(".answer .caption").inner_text()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_is_light_or_dark_as_the_reader_prefers(visit, colours):
    pixels = screenshot(visit(colours=colours), f"first-{colours}")
    wanted = {"light": (0xFB, 0xFA, 0xF7), "dark": (0x13, 0x15, 0x18)}[colours]
    assert tuple(pixels[-3, 3]) == wanted


def test_started_with_nothing_it_captions_with_nano(browser, tmp_path):
    (tmp_path / "temporary").mkdir()
    with running(tmp_path, {}) as address, browser.new_context() as context:
        context.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_text("px: ready")).to_be_visible()
        sample = page.get_by_role("checkbox", name="Sea")
        sample.focus()
        page.keyboard.press("Space")
        expect(sample).to_be_checked()
        page.get_by_role("button", name="Caption the image").click()
        caption = page.locator(".answer .caption")
        expect(caption).to_contain_text("one boat")  # in words of its own, such as "white one boat"
        screenshot(page, "nano")
