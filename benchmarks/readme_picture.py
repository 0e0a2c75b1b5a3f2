"""Draws the README's picture: the first twelve test images of a run on drawn scenes, as captioned.

    paligemma finetune
    python benchmarks/readme_picture.py workdir/demo docs/captions.png

The images are those that come first, whatever the model says of them. What is not true is named.
"""

import json
import sys
from pathlib import Path

from PIL import Image

from paligemma_lib.report import contact_sheet
from paligemma_lib.run.drawn_scorer import remark_on

IMAGES = 12
SEED = 0  # of the default run
WIDTH = 843  # pixels


def main(workdir: str, out: str) -> None:
    predictions = json.loads((Path(workdir) / "predictions.json").read_text())[:IMAGES]
    captions = {each["image_id"]: each["caption"] for each in predictions}
    remarks = [remark_on(name, caption, SEED) for name, caption in captions.items()]
    images = Path(workdir) / "scenes-1500" / "Images"
    sheet = contact_sheet(
        [(images / name, caption) for name, caption in captions.items()],
        remarks=remarks,
    )
    small = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)))
    small.quantize(256, Image.Quantize.FASTOCTREE, 2).save(out, optimize=True)
    print(f"{remarks.count('')} of {len(captions)} captions are true")


if __name__ == "__main__":
    main(*sys.argv[1:])
