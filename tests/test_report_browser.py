"""What a browser makes of the report: needs Chromium, such as Debian's `chromium`."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_cases import HOSTILE, full_report

from paligemma_lib.report import render, write_report

pytestmark = pytest.mark.slow

WIDTHS = (320, 360, 390, 768, 1280)
MEASURE = """
const found = {};
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument;
    const wide = [...page.querySelectorAll("main *:not(svg *), header *")].filter(
      (e) => e.getBoundingClientRect().right > frame.width);
    found[frame.width] = {
      overflow: page.documentElement.scrollWidth - frame.width,
      tooWide: wide.map((e) => e.outerHTML.slice(0, 100)),
      images: [...page.images].map((image) => image.naturalWidth),
      smallest: Math.min(...[...page.querySelectorAll(".chart text")]
        .map((e) => e.getBoundingClientRect().height).filter((h) => h > 0)),
      styled: getComputedStyle(page.querySelector("nav ul")).display,
      title: page.title,
    };
  }
  document.title = "measured";
  document.body.textContent = JSON.stringify(found);
});
"""


def chromium(*arguments: str, home: Path) -> str:
    """Standard output of a headless Chromium, which may not use the network."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    program = program or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs chromium")
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    fixed += [f"--user-data-dir={home / 'profile'}", "--proxy-server=127.0.0.1:9"]
    return subprocess.run(
        [program, *fixed, *arguments], capture_output=True, text=True, timeout=120, check=True
    ).stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, dict]:
    """What is measured of the page in frames of several widths, all folds open."""
    folder = tmp_path_factory.mktemp("measured")
    page = render(full_report()).replace("<details", "<details open")
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(page)}"></iframe>'
        for width in WIDTHS
    )
    harness = folder / "harness.html"
    harness.write_text(
        f"<!DOCTYPE html><title>-</title><body>{frames}<script>{MEASURE}</script>", "utf-8"
    )
    dom = chromium("--dump-dom", harness.as_uri(), home=folder)
    assert "<title>measured</title>" in dom, dom[-2000:]
    return json.loads(html.unescape(re.search("<body>(.*?)</body>", dom, re.DOTALL)[1]))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_sticks_out_at_any_width(measured, width):
    found = measured[str(width)]
    assert (found["overflow"], found["tooWide"]) == (0, [])


def test_the_policy_lets_style_and_images_through(measured):
    for found in measured.values():
        assert found["styled"] == "flex"
        assert len(found["images"]) == 21
        assert min(found["images"]) > 0


def test_the_figures_of_charts_can_be_read_on_a_phone(measured):
    assert measured["360"]["smallest"] >= 10  # pixels


def test_captions_that_hold_html_do_nothing(measured, tmp_path):
    assert {found["title"] for found in measured.values()} == {f"Title {HOSTILE}"}
    path = write_report(tmp_path / "report.html", full_report())
    dom = chromium("--dump-dom", "--virtual-time-budget=2000", path.as_uri(), home=tmp_path)
    assert f"<title>{html.escape('Title ' + HOSTILE, quote=False)}</title>" in dom
    assert "<title>owned</title>" not in dom


def test_the_policy_stops_scripts_even_if_one_got_in(tmp_path):
    page = render(full_report()).replace(
        "</body>", "<script>document.title = 'owned'</script></body>"
    )
    path = tmp_path / "injected.html"
    path.write_text(page, "utf-8")
    dom = chromium("--dump-dom", "--virtual-time-budget=2000", path.as_uri(), home=tmp_path)
    assert "document.title = 'owned'" in dom
    assert "<title>owned</title>" not in dom


def screenshot(folder: Path, page: Path, *arguments: str) -> np.ndarray:
    """uint8[H, W, 3]."""
    image = folder / "screen.png"
    chromium(
        f"--screenshot={image}", "--window-size=1000,1200", *arguments, page.as_uri(), home=folder
    )
    return np.asarray(Image.open(image).convert("RGB"))


def test_it_is_light_or_dark_as_the_reader_prefers(tmp_path):
    path = write_report(tmp_path / "report.html", full_report())
    light = screenshot(tmp_path, path)
    dark = screenshot(tmp_path, path, "--blink-settings=preferredColorScheme=0")
    assert tuple(light[5, 5]) == (0xFB, 0xFA, 0xF7)
    assert tuple(dark[5, 5]) == (0x13, 0x15, 0x18)
    for pixels in (light, dark):
        drawn = (np.abs(pixels.astype(int) - pixels[5, 5]) > 30).any(axis=-1)
        assert 0.02 < drawn.mean() < 0.7  # text, lines and images on a calm ground
