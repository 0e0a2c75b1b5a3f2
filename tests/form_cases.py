"""Six images with a caption each, in every form of data; the images are in Images/ of a folder."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
from data_cases import photo

from paligemma_lib.testing import tiny_captions

NAMES = [f"img_{k}.jpg" for k in range(6)]


def as_captions_txt(folder):
    path = folder / "captions.txt"
    path.write_text("image,caption\n" + "".join(f"{name},c {name}\n" for name in NAMES))
    return folder


def as_flickr30k(folder):
    path = folder / "results.csv"
    head = "image_name| comment_number| comment\n"
    path.write_text(head + "".join(f"{name}| 0| c {name}\n" for name in NAMES))
    return folder


def as_imagefolder(folder):
    table = "".join(json.dumps({"file_name": n, "text": f"c {n}"}) + "\n" for n in NAMES)
    (folder / "Images" / "metadata.jsonl").write_text(table)
    return folder / "Images"


def as_coco(folder):
    content = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(NAMES)],
        "annotations": [{"image_id": k, "caption": f"c {name}"} for k, name in enumerate(NAMES)],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def as_tokens(folder):
    path = folder / "Flickr8k.token.txt"
    path.write_text("".join(f"{name}#0\tc {name}\n" for name in NAMES))
    return path


def as_sidecars(folder):
    for name in NAMES:
        (folder / "Images" / name).with_suffix(".txt").write_text(f"c {name}\n")
    return folder / "Images"


def as_parquet(folder):
    images = [{"bytes": photo(k), "path": name} for k, name in enumerate(NAMES)]
    path = folder / "data.parquet"
    pq.write_table(pa.table({"image": images, "caption": [f"c {name}" for name in NAMES]}), path)
    return path


def as_webdataset(folder):
    path = folder / "data-000.tar"
    with tarfile.open(path, "w") as archive:
        for k, name in enumerate(NAMES):
            for member, data in ((name, photo(k)), (f"img_{k}.txt", f"c {name}".encode())):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return folder / "data-{000..000}.tar"


def packed(count: int, first: int = 0) -> bytes:
    """A Parquet file of images; those of another `first` have the same sizes and other captions."""
    captions = tiny_captions()
    table = {
        "image": [{"bytes": photo(k), "path": f"{k}.png"} for k in range(count)],
        "caption": [captions[(first + k) % len(captions)] for k in range(count)],
    }
    out = io.BytesIO()
    pq.write_table(pa.table(table), out)
    return out.getvalue()
