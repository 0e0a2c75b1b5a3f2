"""Eight visitors of the web app for a minute: errors, waiting times, and the server's memory.

    pip install -e ".[app]" playwright
    python benchmarks/app_load.py [--users 8] [--seconds 60] [--checkpoint nano]

Starts the app and opens it in as many windows of a headless Chromium. Each visitor takes a sample,
presses the button, waits for the caption, clears it, takes another sample, and changes to beam
search and back.
Waiting is from the click to the caption on the screen, the browser's work included: all windows
and the server share this machine.
"""

import argparse
import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

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
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "examples" / "app.py")]
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
        end, memory = time.monotonic() + seconds, [resident(pid)]
        visits = [visit(page, number, end) for number, page in enumerate(pages)]
        waits, _ = await asyncio.gather(
            asyncio.gather(*visits, return_exceptions=True), watch(pid, end, memory)
        )
        for page in pages:
            errors += await page.locator(".problem, .stException").all_inner_texts()
        await browser.close()
    errors += [str(each) for each in waits if isinstance(each, BaseException)]
    found = sorted(wait for each in waits if isinstance(each, list) for wait in each)
    print(f"{users} visitors, {seconds:.0f} s: {len(found)} captions, {len(errors)} errors")
    for error in errors:
        print(f"  {error}")
    if found:
        last = found[min(len(found) - 1, round(0.95 * len(found)))]
        print(f"from click to caption: median {statistics.median(found):.2f} s, 95 % {last:.2f} s")
    third = max(1, len(memory) // 3)
    before, after = statistics.mean(memory[:third]), statistics.mean(memory[-third:])
    print(f"server: {before:,.0f} MiB in the first third, {after:,.0f} in the last: ", end="")
    print(f"ratio {after / before:.2f}")


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
        box = page.get_by_role("checkbox", name=SAMPLES[turn % len(SAMPLES)])
        await page.get_by_text(("Greedy", "Beam search")[turn % 2], exact=True).click()
        await box.check(force=True)
        button = page.get_by_role("button", name="Caption the picture")
        await expect(button).to_be_enabled()
        start = time.monotonic()
        await button.click()
        await expect(page.locator(".answer .facts")).to_have_count(1)
        waits.append(time.monotonic() - start)
        await page.get_by_role("button", name="Clear").click()
        await expect(page.locator(".answer")).to_have_count(0)
        await box.uncheck(force=True)
        await expect(page.get_by_role("button", name="Choose a picture first")).to_be_visible()
    return waits


async def watch(pid: int, end: float, memory: list[float]) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(2)
        memory.append(resident(pid))


def resident(pid: int) -> float:
    """Memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
