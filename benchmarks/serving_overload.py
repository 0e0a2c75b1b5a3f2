"""Ten minutes of twice what a server can do, clients that leave, hostile bodies, a thread killed.

    python benchmarks/serving_overload.py [--minutes 10]

Measures what the server can do with 32 clients, and then asks for twice as much, each request on
its own clock. Meanwhile clients leave half-way (1,000 in all), others send bombs, endless streams,
wrong lengths and tiny requests (10,000), and threads of the engine are killed. Every whole request
must be answered by 200, or by 429 with Retry-After, in time; the server's memory must not grow by
more than 5 % after the first fifth. Prints what came, and exits with 1 if that is not so.
"""

import argparse
import asyncio
import collections
import ctypes
import random
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator

import http_clients as clients
import psutil
from serving_load import closed_loop

TIMEOUT = 60  # seconds after which a request counts as hung


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    port = clients.free_port()
    with clients.started([sys.executable, __file__, f"--serve={port}"], port) as server:
        raise SystemExit(asyncio.run(measure(port, server.pid, args.minutes * 60)))


def serve(port: int) -> None:
    """`paligemma serve` with threads that die of SIGUSR1."""
    from paligemma_lib.cli.main import main as paligemma

    def kill(*_: object) -> None:
        for thread in threading.enumerate():
            if thread.name in ("write", "read 0") and thread.ident:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
                )

    signal.signal(signal.SIGUSR1, kill)
    raise SystemExit(paligemma(["serve", f"--port={port}", "--max-waiting=128"]))


async def measure(port: int, pid: int, seconds: float) -> int:
    images = clients.scenes(64)
    requests = [clients.upload(image) for image in images]
    requests += [clients.chat(image, temperature=1.0) for image in images]
    # What TensorFlow takes to decode the largest image, it keeps for the next one.
    for _ in range(4):
        await clients.Connection(port).ask(clients.upload(png_bomb()))
    await closed_loop(port, requests, 32, 5)
    rate = 2 * len(await closed_loop(port, requests, 32, 15)) / 15
    print(f"asking for {rate:.0f} captions a second", flush=True)
    found: collections.Counter[str] = collections.Counter()
    end, process, memory = time.monotonic() + seconds, psutil.Process(pid), []
    tasks = [
        asyncio.create_task(arrive(port, requests, rate, end, found)),
        asyncio.create_task(leave(port, requests, seconds / 1000, end, found)),
        asyncio.create_task(harm(port, seconds / 10_000, end, found)),
    ]
    begin = time.monotonic()
    while (now := time.monotonic()) < end:
        await asyncio.sleep(min(10, end - now))
        memory.append((time.monotonic() - begin, process.memory_info().rss / 2**20))
        if len(memory) % 12 == 3:
            process.send_signal(signal.SIGUSR1)
            found["threads killed"] += 2
    await asyncio.gather(*tasks)
    await asyncio.sleep(3)
    status, _, _ = await clients.Connection(port).ask(clients.upload(images[0]))
    for name, count in sorted(found.items()):
        print(f"{name}: {count}")
    settled = [size for age, size in memory if age >= seconds / 5]
    growth = max(settled) / settled[0] - 1
    print(f"memory: {settled[0]:.0f} MiB, at most {max(settled):.0f}, at last {settled[-1]:.0f}")
    print(f"growth: {growth:.1%}; a caption afterwards: {status}")
    bad = [name for name in found if name.startswith("bad")]
    return int(bool(bad) or growth > 0.05 or status != 200)


async def arrive(
    port: int, requests: list[bytes], rate: float, end: float, found: collections.Counter
) -> None:
    """Asks at this rate, whatever the answers."""
    running: set[asyncio.Task] = set()

    async def one(request: bytes) -> None:
        connection = clients.Connection(port)
        try:
            status, head, _ = await asyncio.wait_for(connection.ask(request), TIMEOUT)
        except TimeoutError:
            found["bad: hung"] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            found[f"bad: lost, {type(error).__name__}"] += 1
        else:
            fine = status == 200 or (status == 429 and "retry-after" in head)
            found[f"{'answered' if fine else 'bad'}: {status}"] += 1
        connection.close()

    begin, count = time.monotonic(), 0
    while time.monotonic() < end:
        while count < (time.monotonic() - begin) * rate:
            task = asyncio.create_task(one(random.choice(requests)))
            running.add(task)
            task.add_done_callback(running.discard)
            count += 1
        await asyncio.sleep(0.01)
    await asyncio.gather(*running)


async def leave(
    port: int, requests: list[bytes], pause: float, end: float, found: collections.Counter
) -> None:
    """Clients that close their connection in the middle of a request, or of an answer."""
    async for _ in paced(pause, end):
        request = random.choice(requests)
        sent = random.choice([len(request) // 2, len(request)])
        await rudely(port, request[:sent], random.random() / 10)
        found["clients that left"] += 1


async def harm(port: int, pause: float, end: float, found: collections.Counter) -> None:
    """Bodies that are meant to do harm."""
    bomb = clients.upload(png_bomb())
    bodies = {
        "bombs": bomb,
        "endless streams": b"POST /caption HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: multipart/form-data; boundary=B\r\n\r\n" + b"10000\r\n" + b"x" * 65536,
        "lengths too long": b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nx",
        "lengths too large": b"POST /caption HTTP/1.1\r\nHost: x\r\nContent-Length: 9" + b"9" * 12
        + b"\r\n\r\n",
        "no HTTP": bytes(range(256)) * 4,
        "deep JSON": clients.post("/v1/chat/completions", b"[" * 100_000, "application/json"),
        "tiny requests": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    }  # fmt: skip
    names = list(bodies)
    async for _ in paced(pause, end):
        name = random.choice(names) if random.random() < 0.05 else "tiny requests"
        await rudely(port, bodies[name], 0.01)
        found[name] += 1


async def paced(pause: float, end: float) -> AsyncIterator[None]:
    """Yields each `pause` seconds, sooner if late, until the end."""
    begin, count = time.monotonic(), 0
    while (now := time.monotonic()) < end:
        await asyncio.sleep(max(0.0, begin + count * pause - now))
        yield
        count += 1


async def rudely(port: int, data: bytes, pause: float) -> None:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        await asyncio.sleep(pause)
        writer.transport.abort()
    except OSError:
        pass  # the server has closed it first


def png_bomb() -> bytes:
    """A PNG of 8,000 x 7,900 black pixels in 200 kB: just within the bounds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = zlib.compress(bytes(8001) * 7900, 9)
    header = struct.pack(">IIBBBBB", 8000, 7900, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


if __name__ == "__main__":
    main()
