"""Looks into a folder of data: its small JSON files, the folders of its splits, an unpacked zip.

json_in("saved", "dataset_dict.json", within=("saved",))          # {"splits": ["train", "test"]}
split_folders("saved", os.listdir("saved"), within=("saved",))    # ["train", "test"]
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from paligemma_lib.data.files import join, read_whole
from paligemma_lib.data.outside import check_link
from paligemma_lib.data.sources.coco_folder import coco_tables
from paligemma_lib.data.sources.file_names import TABLES, is_image, is_table
from paligemma_lib.data.sources.json_values import parse_json
from paligemma_lib.data.sources.split_names import ALIASES, usual_split
from paligemma_lib.data.sources.table_forms import MAX_TABLE_BYTES


def split_folders(folder: str, names: Sequence[str], within: Sequence[str]) -> list[str]:
    """Returns the folders of splits; none if there are none, or not of all splits."""
    # `save_to_disk` of Hugging Face lists the folders of its splits, which may have any names.
    listed = json_in(folder, "dataset_dict.json", within).get("splits")
    if listed is not None and not (
        isinstance(listed, list)
        and all(isinstance(each, str) and _is_plain(each) for each in listed)
    ):
        raise ValueError(
            f"{join(folder, 'dataset_dict.json')}: splits is {str(listed)[:80]}, expected names of "
            "folders"
        )
    parts = listed or [name for name in names if usual_split(name) in ALIASES]
    if not all(os.path.isdir(join(folder, name)) for name in parts):
        return []
    for name in parts:
        check_link(join(folder, name), within)
    return parts


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and os.path.basename(name) == name and "\0" not in name


def unpacked(folder: str, files: Sequence[str]) -> str:
    """Returns the one folder that holds all of the data, as of a zip that was unpacked; else ""."""
    inner = {file.partition("/")[0] for file in files if is_table(file) or is_image(file)}
    if len(inner) != 1 or not os.path.isdir(place := join(folder, name := inner.pop())):
        return ""
    known = coco_tables(place) or {*os.listdir(place)} & {*dict(TABLES)}
    return name if known else ""


def json_in(folder: str, name: str, within: Sequence[str]) -> dict:
    """Returns the object in a JSON file; {} if there is no such file."""
    path = join(folder, name)
    if not os.path.isfile(path):
        return {}
    check_link(path, within)
    try:
        found = parse_json(read_whole(path, MAX_TABLE_BYTES))
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from error
    return found if isinstance(found, dict) else {}
