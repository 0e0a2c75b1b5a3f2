"""The main job, as far as it goes: builds the sample data set and shows what it made.

    python examples/finetune.py [--workdir=workdir]

Draws captioned scenes, packs them into TFRecords by the same builder as real photographs, prints
the verification report and some examples, and saves a sheet of pictures to look at.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow_datasets as tfds
from PIL import Image, ImageOps
from sample_data import write_scenes

import flickr8k_tfds

SHEET = (4, 3)  # columns and rows of pictures
CELL = (256, 192)  # width and height of each in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path("workdir"))
    parser.add_argument("--pictures", type=int, default=1500, help="how many scenes to draw")
    args = parser.parse_args()

    tfds.display_progress_bar(False)
    sample = write_scenes(args.workdir / f"sample-{args.pictures}", count=args.pictures)
    builder = flickr8k_tfds.Builder(data_dir=args.workdir / f"tfds-{args.pictures}")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=sample))

    examples = list(tfds.as_numpy(builder.as_dataset(split="train").take(SHEET[0] * SHEET[1])))
    for example in examples[:3]:
        print(f"\n{example['image_id'].decode()}, {example['width']} x {example['height']} pixels")
        for caption in example["captions"]:
            print(f"  {caption.decode()}")
    path = args.workdir / "examples.png"
    sheet([Image.fromarray(example["image"]) for example in examples]).save(path)
    print(f"\nTFRecords and verification.json: {builder.data_path}\nPictures: {path}")


def sheet(pictures: list[Image.Image]) -> Image.Image:
    """The pictures side by side, each fitted into a cell."""
    result = Image.new("RGB", (SHEET[0] * CELL[0], SHEET[1] * CELL[1]), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, SHEET[0])
        cell = ImageOps.pad(picture, (CELL[0] - 8, CELL[1] - 8), color="white")
        result.paste(cell, (column * CELL[0] + 4, row * CELL[1] + 4))
    return result


if __name__ == "__main__":
    main()
