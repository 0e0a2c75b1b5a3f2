"""Eight visitors of the web app for a minute: errors, waiting times, and the server's memory.

    pip install -e ".[app]" playwright
    python benchmarks/app_load.py [--users 8] [--seconds 60] [--checkpoint nano]

Starts the app and opens it in as many windows of a headless Chromium. Each visitor takes a sample
or uploads a new image, presses the button, waits for the caption, clears it, takes another one,
and changes to beam search and back.
Waiting is from the click to the caption on the screen, the browser's work included: all windows
and the server share this machine. Memory is the server's resident memory, from when all windows are
open and all programs compiled.
"""

import argparse
import asyncio
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ("Beach", "Meadow", "Night", "Room", "Sea", "Snow")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--checkpoint", default="nano")
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "examples" / "app" / "app.py")]
    command += [f"--server.port={port}", "--server.headless=true", "--"]
    server = subprocess.Popen([*command, "--checkpoint", args.checkpoint], cwd=ROOT)
    try:
        wait_for(port)
        asyncio.run(measure(f"http://localhost:{port}", server.pid, args.users, args.seconds))
    finally:
        server.terminate()
        server.wait(60)


def wait_for(port: int) -> None:
    """Returns when something listens there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("localhost", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


async def measure(address: str, pid: int, users: int, seconds: float) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    arguments = ["--no-sandbox", "--disable-gpu"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments)
        errors: list[str] = []
        pages = [await enter(browser, address, errors) for _ in range(users)]
        await idle(pid)
        start = time.monotonic()
        visits = [visit(page, number, start + seconds) for number, page in enumerate(pages)]
        waits, memory = await asyncio.gather(
            asyncio.gather(*visits, return_exceptions=True), watch(pid, seconds)
        )
        took = time.monotonic() - start
        for page in pages:
            errors += await page.locator(".problem, .stException").all_inner_texts()
        await browser.close()
    errors += [str(each) for each in waits if isinstance(each, BaseException)]
    found = sorted(wait for each in waits if isinstance(each, list) for wait in each)
    print(f"{users} visitors, {took:.0f} s: {len(found)} captions, {len(errors)} errors")
    for error in errors:
        print(f"  {error}")
    if found:
        last = found[min(len(found) - 1, round(0.95 * len(found)))]
        print(f"captions each second: {len(found) / took:.2f}")
        print(
            f"from click to caption: median {statistics.median(found):.2f} s, 95 % {last:.2f} s, "
            f"longest {found[-1]:.2f} s"
        )
    told = ", ".join(f"{mebibytes:,.0f} after {age:.0f} s" for age, mebibytes in memory)
    print(f"resident memory of the server in MiB: {told}")
    print(f"end / 20 s: {memory[-1][1] / memory[1][1]:.3f}")


async def enter(browser: Browser, address: str, errors: list[str]) -> Page:
    """A visitor's window, when the model is ready."""
    context = await browser.new_context(viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(300_000)
    expect.set_options(timeout=300_000)
    page = await context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    await page.goto(address)
    await expect(page.get_by_text("px: ready")).to_be_visible()
    return page


async def visit(page: Page, number: int, end: float) -> list[float]:
    """One visitor; returns seconds from click to caption."""
    waits: list[float] = []
    while time.monotonic() < end:
        turn = number + len(waits)
        await page.get_by_text(("Greedy", "Beam search")[turn % 2], exact=True).click()
        sample = page.get_by_role("checkbox", name=SAMPLES[turn % len(SAMPLES)])
        if uploads := turn % 4 < 2:
            file = {"name": f"{turn}.jpg", "mimeType": "image/jpeg", "buffer": photograph()}
            await page.locator("input[type=file]").set_input_files([file])
        else:
            await sample.check(force=True)
        button = page.get_by_role("button", name="Caption the image")
        await expect(button).to_be_enabled()
        start = time.monotonic()
        await button.click()
        await expect(page.locator(".answer .facts")).to_have_count(1)
        waits.append(time.monotonic() - start)
        await page.get_by_role("button", name="Clear").click()
        await expect(page.locator(".answer")).to_have_count(0)
        if uploads:
            await page.get_by_role("button", name=f"Remove {turn}.jpg").click()
        else:
            await sample.uncheck(force=True)
        await expect(page.get_by_role("button", name="Choose an image first")).to_be_visible()
    return waits


def photograph() -> bytes:
    """About half a megabyte of JPEG, each time another."""
    file = io.BytesIO()
    Image.effect_noise((1500, 1000), 40).convert("RGB").save(file, "JPEG", quality=60)
    return file.getvalue()


async def idle(pid: int) -> None:
    """Returns when the server has nothing more to compile."""
    before = -1.0
    while (now := processor_seconds(pid)) - before > 0.5:
        before = now
        await asyncio.sleep(5)


async def watch(pid: int, seconds: float) -> list[tuple[float, float]]:
    """Seconds and MiB: at the beginning, after 20 s (or a third), and at the end."""
    begin, found = time.monotonic(), []
    for age in (0, min(20, seconds / 3), seconds):
        await asyncio.sleep(begin + age - time.monotonic())
        found.append((age, resident(pid)))
    return found


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
