"""Puts a model and a card made from its run on the Hugging Face Hub.

  paligemma push workdir/demo me/my-captioner
  paligemma push runs/mine me/my-captioner --private --picture captions.png

A checkpoint is given as for `paligemma show`. Of the workdir of a run, the card tells the data,
what was trained, and the scores. Run `hf auth login` first, or set HF_TOKEN to a token that may
write.
"""

import argparse
from pathlib import Path

from paligemma_lib.cli.console import load_tensorflow
from paligemma_lib.cli.parser import Parser
from paligemma_lib.runtime.visible_text import visible

USAGE = "CHECKPOINT OWNER/NAME [options]"


def configure(parser: Parser) -> None:
    """Adds the options."""
    parser.add_argument("checkpoint", help="the model, or the workdir of a run")
    parser.add_argument("name", metavar="OWNER/NAME", help="where it goes on the Hub")
    parser.add_argument("--private", action="store_true", help="push to no public repository")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="image to show on the card")


def run(args: argparse.Namespace) -> int:
    """Pushes; returns the exit code."""
    load_tensorflow()
    from paligemma_lib.run.publishing import push

    url = push(args.checkpoint, args.name, private=args.private, picture=args.picture)
    print(f"pushed to {visible(url)}")
    return 0
