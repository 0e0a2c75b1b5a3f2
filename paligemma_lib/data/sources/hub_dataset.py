"""Downloads what is needed of a data set of the Hugging Face Hub, and returns the local paths.

    for split, part in local_parts("nlphuji/flickr30k", split="train").items():
        part.paths

Files lie in the cache of huggingface_hub, by commit. A folder or a table is opened in a view: a
folder of links to the cached files of one selection. So other files of the commit that are in the
cache cannot change what is found. No program of a repository is run.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from paligemma_lib.data.sources.hub_card import MAX_CARD_BYTES, read_card
from paligemma_lib.data.sources.hub_commits import commit_of, repo_of
from paligemma_lib.data.sources.hub_configs import (
    HubConfig,
    configs_in_card,
    configs_of_export,
)
from paligemma_lib.data.sources.hub_files import Part, parts_of, told
from paligemma_lib.data.sources.hub_reference import HubReference, parse
from paligemma_lib.hub.huggingface_refusals import CACHE_SETTING, huggingface_refusals
from paligemma_lib.hub.huggingface_repos import api
from paligemma_lib.runtime.disk_space import check_download

_CARD = "README.md"

_log = logging.getLogger(__name__)


class LocalPart(NamedTuple):
    """Local files of a split.

    Attributes:
      paths: one file or folder of any form, or several packed files that are one source.
      images: folder of the images of a table; "": beside the table.
    """

    paths: Sequence[str]
    images: str


def local_parts(path: str, split: str = "") -> dict[str, LocalPart]:
    """Downloads the files of a data set that are not in the cache yet.

    Args:
      path: a path for which `is_hub` is true.
      split: the one split that is wanted, so that files of others need not come; "": all.

    Returns:
      The parts by split; "" stands for files that tell their splits themselves.

    Raises:
      FileNotFoundError: there is no such data set, revision, path or configuration.
      PermissionError: the data set is gated or private, and the token does not open it.
      ConnectionError: the Hub cannot be reached, or is not to be, and the cache lacks files.
      OSError: there is not enough disk space.
      ImportError: huggingface_hub is not installed.
      ValueError: the data have no known form, or no such split, or the reference is malformed.
    """
    reference = parse(path)
    commit = commit_of(reference)
    sizes = repo_of(reference).sizes(commit)
    # A path in the repository says all that a card could.
    configs = [] if reference.path else _configs(reference, commit, sizes)
    parts = parts_of([*sizes], reference, configs, split)
    wanted = list(dict.fromkeys(file for part in parts.values() for file in part.files))
    cached = _downloaded(reference, commit, wanted, sizes)
    return {name: _local(reference, commit, part, cached) for name, part in parts.items()}


def _configs(reference: HubReference, commit: str, sizes: Mapping[str, int]) -> list[HubConfig]:
    if _CARD not in sizes:
        return configs_of_export([*sizes])
    if sizes[_CARD] > MAX_CARD_BYTES:
        raise ValueError(f"{reference.name}: {_CARD} has {sizes[_CARD]:,} bytes, too many to read")
    with huggingface_refusals(reference.name, repo_of(reference).page):
        card = api().hf_hub_download(reference.repo, _CARD, repo_type="dataset", revision=commit)
    try:
        return configs_in_card(read_card(card))
    except ValueError as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{reference.name}: the card of the data set, {_CARD}, cannot be used: {why}. Give the "
            f"path of its data, as hf://datasets/{reference.name}/FOLDER"
        ) from error


def _downloaded(
    reference: HubReference, commit: str, files: Sequence[str], sizes: Mapping[str, int]
) -> dict[str, str]:
    """Downloads what is not in the cache; returns the path of each file in the cache."""
    from huggingface_hub import constants

    repo = repo_of(reference)
    found = repo.cached(commit, files)
    missing = [file for file in files if file not in found]
    whole, needed = (sum(sizes[file] for file in each) for each in (files, missing))
    _log.info(
        "%s, commit %s%s: %s, %.1f MB, %s",
        reference.repo, commit, f", configuration {reference.config}" * bool(reference.config),
        told(files), whole / 1e6,
        f"of which {needed / 1e6:,.1f} MB are to be downloaded" if missing else "in the cache",
    )  # fmt: skip
    if missing:
        check_download(reference.name, needed, Path(constants.HF_HUB_CACHE), CACHE_SETTING)
        with huggingface_refusals(reference.name, repo_of(reference).page):
            api().snapshot_download(
                reference.repo, repo_type="dataset", revision=commit,
                allow_patterns=_patterns(missing, [*sizes]),
            )  # fmt: skip
        found = repo.cached(commit, files)
        if lacking := [file for file in files if file not in found]:
            raise ConnectionError(f"{reference.name}: {lacking[0]} did not come. Run this again")
    return found


def _patterns(wanted: Sequence[str], files: Sequence[str]) -> list[str]:
    """Returns patterns that match the wanted files alone.

    huggingface_hub compares each file with each pattern. So thousands of images are asked for by
    folder and suffix, unless that would bring other files, too.
    """
    from huggingface_hub.utils import filter_repo_objects

    ends = {(file.rpartition("/")[0], os.path.splitext(file)[1]) for file in wanted}
    few = [f"{glob.escape(f'{place}/' if place else '')}*{glob.escape(end)}" for place, end in ends]
    if set(filter_repo_objects(files, allow_patterns=few)) == set(wanted):
        return few
    return [glob.escape(file) for file in wanted]


def _local(
    reference: HubReference, commit: str, part: Part, cached: Mapping[str, str]
) -> LocalPart:
    if part.opened is None:
        return LocalPart([cached[file] for file in part.files], "")
    view = _view(reference, commit, {file: cached[file] for file in part.files})
    images = "" if part.images is None else str(view / part.images)
    return LocalPart([str(view / part.opened)], images)


def _view(reference: HubReference, commit: str, files: Mapping[str, str]) -> Path:
    """Returns a folder that links to these files of the cache and holds no others."""
    from huggingface_hub import cached_assets_path, constants

    # The name is that of the selection, so several processes make the same links, or find them.
    selection = hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()[:12]
    folder = cached_assets_path(
        "paligemma_lib",
        reference.repo,
        f"{commit}-{selection}",
        assets_dir=constants.HF_ASSETS_CACHE,
    )
    for file, path in files.items():
        link = folder / file
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            partial = link.with_name(f".{secrets.token_hex(8)}.partial")
            partial.symlink_to(path)
            partial.replace(link)
    return folder
