"""How many captions `paligemma serve` writes, and how soon, for 1, 8 and 32 clients at a time.

    python benchmarks/serving_load.py [--size nano|mini] [--torch-python PYTHON]

Each client asks for its next caption when it has one, over a connection of its own. Beside it:
offline, the same model in this process in batches of 32 (`Captioner.stream`, images decoded, too);
for the first text, `generate` of one image and one token, after decoding it; and, with
--torch-python, a plain server around transformers' `generate` (`serving_peer.py`). They take turns.
`mini` has 94 million random parameters less a vocabulary of nano's, and writes 12 tokens always.
Targets: at 32 clients 0.9 of offline and 4 times the plain server; the first text at 1 client
within 1.15 times `generate`.
"""

import argparse
import asyncio
import dataclasses
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import http_clients as clients
import jax
import numpy as np

import paligemma_lib as pg
from paligemma_lib.captioner import Captioner
from paligemma_lib.decode import generate

TOKENS = {"nano": 32, "mini": 12}  # `nano` ends its captions itself


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=TOKENS, default="nano")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch-python", help="interpreter with torch and transformers")
    args = parser.parse_args()
    captioner, folder = model_of(args.size)
    images, tokens = clients.scenes(64), TOKENS[args.size]
    port = clients.free_port()
    command = [sys.executable, "-m", "paligemma_lib", "serve", f"--port={port}"]
    command += [f"--checkpoint={args.size}={folder}", f"--max-new-tokens={tokens}"]
    requests = [clients.upload(image) for image in images]
    streamed = [clients.chat(image, stream=True) for image in images]
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with clients.started(command, port):
        for _ in range(args.rounds):
            note("offline, 32 at a time: captions/s", offline(captioner, images, tokens))
            for count in (1, 8, 32):
                times = asyncio.run(closed_loop(port, requests, count, args.seconds))
                note(f"{count} clients: captions/s", len(times) / args.seconds)
                note(f"{count} clients: median, ms", 1e3 * statistics.median(times))
                note(f"{count} clients: 99 %, ms", 1e3 * float(np.quantile(times, 0.99)))
            first = asyncio.run(closed_loop(port, streamed, 1, args.seconds))
            note("1 client: first text, ms", 1e3 * statistics.median(first))
            note("generate, one token of one image, ms", 1e3 * alone(captioner, images))
    ratio("1 client: first text, ms", "generate, one token of one image, ms", found)
    ratio("32 clients: captions/s", "offline, 32 at a time: captions/s", found)
    if args.torch_python:
        port = clients.free_port()
        command = [args.torch_python, str(Path(__file__).with_name("serving_peer.py"))]
        command += [exported(captioner), f"--port={port}", f"--tokens={tokens}", "--prompt"]
        command += map(str, captioner.tokenizer.encode_prefix("caption en"))
        with clients.started(command, port, "/"):
            asyncio.run(closed_loop(port, requests, 1, args.seconds))
            for _ in range(args.rounds):
                times = asyncio.run(closed_loop(port, requests, 32, args.seconds))
                note("plain server, 32 clients: captions/s", len(times) / args.seconds)
        ratio("32 clients: captions/s", "plain server, 32 clients: captions/s", found)
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")


def ratio(of: str, to: str, found: dict[str, list[float]]) -> None:
    pairs = zip(found[of], found[to], strict=True)
    value = statistics.median(a / b if b else math.inf for a, b in pairs)
    print(f"{of} / {to}: {value:.2f}")


def model_of(size: str) -> tuple[Captioner, str]:
    """The model, and a folder that `paligemma serve` loads it from."""
    nano = pg.load("nano")
    if size == "nano":
        return nano, "nano"
    from model_forward import CONFIG

    language = dataclasses.replace(CONFIG.language, vocab_size=nano.config.language.vocab_size)
    config = dataclasses.replace(CONFIG, language=language)
    params = jax.jit(pg.model.init, static_argnums=0)(config, jax.random.key(0))
    # Without their rows in the embedding, the end of a caption and what is no text are never the
    # likeliest token.
    texts = [nano.tokenizer.decode([each]).strip() for each in range(language.vocab_size)]
    silent = [each for each, text in enumerate(texts) if not text]
    table = params["llm"]["embedder"]["input_embedding"] * 4
    params["llm"]["embedder"]["input_embedding"] = table.at[np.array(silent)].set(0)
    folder = tempfile.mkdtemp()
    pg.checkpoint.save_params(Path(folder) / "mini.npz", jax.device_get(params))
    (Path(folder) / "tokenizer.model").write_bytes(nano.tokenizer.serialized())
    return pg.load(Path(folder) / "mini.npz"), str(Path(folder) / "mini.npz")


def exported(captioner: Captioner) -> str:
    from paligemma_lib.checkpoint import huggingface

    folder = tempfile.mkdtemp() + "/model"
    huggingface.export(jax.device_get(captioner.params), captioner.config, folder)
    return folder


def offline(captioner: Captioner, images: list[bytes], tokens: int) -> float:
    """Captions a second."""
    source = pg.data.from_images(images * 2 if captioner.config.vision.image_size < 200 else images)
    begin, count = time.perf_counter(), 0
    for number, _ in enumerate(captioner.stream(source, batch_size=32, max_new_tokens=tokens)):
        if number == 31:  # what was compiled is not counted
            begin, count = time.perf_counter(), number + 1
    return (len(source) - count) / (time.perf_counter() - begin)


def alone(captioner: Captioner, images: list[bytes]) -> float:
    """Seconds for the first token of one image."""
    times = []
    for image in images[:17]:
        begin = time.perf_counter()
        pixels = pg.data.decode_image(image, captioner.config.vision.image_size)
        generate(
            captioner.config, captioner.params, pixels[None], captioner.tokenizer, max_new_tokens=1
        )  # fmt: skip
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


async def closed_loop(port: int, requests: list[bytes], count: int, seconds: float) -> list[float]:
    """Seconds to each answer that came in this time; to the first text of a stream."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection = clients.Connection(port)
        while (begin := time.perf_counter()) < end:
            request = requests[(number + 7 * len(times)) % len(requests)]
            status, _, body = await connection.ask(request)
            if status != 200:
                raise SystemExit(f"status {status}: {body[:300]!r}")
            if (now := time.perf_counter()) < end:
                times.append((connection.first_text or now) - begin)
        connection.close()

    await asyncio.gather(*(client(number) for number in range(count)))
    return times


if __name__ == "__main__":
    main()
