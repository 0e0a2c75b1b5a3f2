"""Trains with a loop of your own, built from parts of the library: batches, steps, captions.

    python examples/own_loop.py                     # drawn scenes, the nano model, a minute
    python examples/own_loop.py FOLDER --steps 200  # captions.txt and Images/

Only the imported parts belong to the library, and you can replace any of them.
"""

import argparse
import dataclasses
import tempfile

import paligemma_lib as pg
from paligemma_lib.data.sources import Source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="with captions.txt and Images/")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--checkpoint", default="nano")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as drawn:
        folder = args.folder or pg.sample_data.write_scenes(f"{drawn}/scenes", count=200)
        train(pg.data.from_folder(folder), args.checkpoint, args.steps)


def train(source: Source, checkpoint: str, steps: int) -> None:
    """Trains the attention layers, and captions one image before and after."""
    captioner = pg.load(checkpoint)
    config, image = captioner.config, source.read([0])[0].image
    print("before:", captioner.caption(image))

    mesh = pg.sharding.make_mesh()
    optimizer = pg.train.make_optimizer("adamw", learning_rate=3e-3, total_steps=steps)
    state = pg.train.init_state(
        config, captioner.params, optimizer, trainable="attention", mesh=mesh
    )
    step = pg.train.make_train_step(config, optimizer, mesh=mesh)
    batches = pg.data.train_batches(
        source,
        captioner.tokenizer,
        image_size=config.vision.image_size,
        text_len=144,
        batch_size=16,
        lowercase=True,
        seed=0,
    )
    for number, batch in zip(range(steps), batches, strict=False):
        state, metrics = step(state, batch)
        if number % 10 == 9:
            print(f"step {number + 1}: loss {float(metrics['loss']):.3f}")
    print("after:", dataclasses.replace(captioner, params=state.all_params()).caption(image))


if __name__ == "__main__":
    main()
