"""Serves captions over HTTP: OpenAI's chat completions, uploads with curl, health, metrics.

  paligemma serve                                 # nano, on 127.0.0.1:8000
  paligemma serve --checkpoint runs/mine --checkpoint base=pt.npz --port 9000
  paligemma serve --checkpoint pt.npz --adapter birds --adapter dogs=runs/dogs

It listens on this machine alone unless --host says otherwise. API keys come from the environment
variable PALIGEMMA_API_KEYS, with commas between them. See /docs on the server.
"""

from __future__ import annotations

import argparse
import functools
import ipaddress
import logging
import os
import sys
from typing import TYPE_CHECKING

from paligemma_lib.cli.console import WrongUse, load_tensorflow
from paligemma_lib.cli.named_paths import models_and_adapters
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.bounds import whole
from paligemma_lib.runtime.visible_text import visible

if TYPE_CHECKING:
    from paligemma_lib.serving.endpoint import ServedModels

_log = logging.getLogger("paligemma_lib")


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--checkpoint", action="append", metavar="[NAME=]C",
        help="file, folder, workdir, adapter, OWNER/NAME; repeatable: the field `model` of a "
        "request chooses (default: nano)",
    )  # fmt: skip
    parser.add_argument(
        "--adapter", action="append", metavar="[NAME=]A",
        help="folder, workdir, OWNER/NAME; repeatable: a model beside the one checkpoint, whose "
        "weights it shares",
    )  # fmt: skip
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: the checkpoint's own)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--weights", choices=("int8", "nf4"), help="matrices in 8 or 4 bits")
    parser.add_argument("--image-size", type=int, metavar="S", help="pixels (default: their own)")
    parser.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="(default: 8000)")
    parser.add_argument(
        "--rows", type=int, default=32, metavar="N", help="captions at a time (default: 32)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument(
        "--max-waiting", type=int, default=256, metavar="N",
        help="images that may wait, then 429 (default: 256)",
    )  # fmt: skip
    parser.add_argument("--max-image-mb", type=int, default=20, metavar="N", help="(default: 20)")


def run(args: argparse.Namespace) -> int:
    """Serves until a signal comes."""
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'{error.name} is not installed: pip install "paligemma_lib[serve]"'
        ) from error
    from paligemma_lib.serving.endpoint import Limits, make_app
    from paligemma_lib.serving.endpoint import run as serve
    from paligemma_lib.serving.endpoint.limits import KEYS, keys_of

    try:
        for name, most in (("port", 65535), ("rows", 1024), ("max_new_tokens", 1 << 16)):
            whole(f"--{name.replace('_', '-')}", getattr(args, name), 1, most)
        whole("--max-waiting", args.max_waiting, 1)
        if args.image_size is not None:
            whole("--image-size", args.image_size, 1)
        whole("--max-image-mb", args.max_image_mb, 1, 64)
        limits = Limits(max_image_bytes=args.max_image_mb << 20, keys=keys_of(os.environ))
        named, adapters = models_and_adapters(args.checkpoint or ["nano"], args.adapter or [])
    except ValueError as error:
        raise WrongUse(str(error)) from error
    load_tensorflow()
    if not limits.keys and not _is_loopback(args.host):
        _log.warning(
            "%s is open to other machines, and there is no API key: set %s, or put a proxy that "
            "asks for one in front", args.host, KEYS,
        )  # fmt: skip
    models = _models(args, named, adapters)
    address = f"http://{args.host}:{args.port}"
    print(
        f"serving {visible(', '.join([*named, *adapters]))} on {address}, see {address}/docs",
        file=sys.stderr,
    )
    serve(make_app(models, limits), models, host=args.host, port=args.port, limits=limits)
    return 0


def _models(
    args: argparse.Namespace, named: dict[str, str], adapters: dict[str, str]
) -> ServedModels:
    from paligemma_lib import captioner
    from paligemma_lib.serving import Engine
    from paligemma_lib.serving.endpoint import ServedModels

    given = args.tokenizer, args.dtype
    engines = {
        name: Engine(
            functools.partial(
                captioner.load, path, *given, adapters, args.weights, image_size=args.image_size
            ),
            rows=args.rows,
            max_new_tokens=args.max_new_tokens,
            max_waiting=args.max_waiting,
            max_per_client=max(1, args.max_waiting // 2),
            adapters=list(adapters),
        )
        for name, path in named.items()
    }
    return ServedModels(engines)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
