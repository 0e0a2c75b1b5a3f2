"""Finds the commits that references to the Hugging Face Hub stand for, so that they stay the same.

commits = commits_of(["nlphuji/flickr30k#train", "captions.csv"], known={})
commits                                          # {"nlphuji/flickr30k@main": "37f3..."}
pinned("nlphuji/flickr30k#train", commits)       # hf://datasets/nlphuji/flickr30k@37f3...#train
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.hub_reference import HubReference, is_hub, parse
from paligemma_lib.hub.huggingface_repos import HubRepo


def commits_of(paths: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Returns the commit of each data set of the Hub, by repository and revision.

    Args:
      paths: paths of data, of which some may be on the Hub, and may end in #SPLIT.
      known: commits that are known. The Hub is asked for others alone.

    Raises:
      OSError, ImportError, ValueError: as `hub_dataset.local_parts`.
    """
    places = [split_path(path)[0] for path in paths]
    references = [parse(place) for place in places if is_hub(place)]
    return {each.name: known.get(each.name) or commit_of(each) for each in references}


def pinned(path: str, commits: Mapping[str, str]) -> str:
    """Returns a path with the commit in place of its revision; other paths stay as they are."""
    place, split = split_path(path)
    if not is_hub(place):
        return path
    reference = parse(place)
    fixed = str(dataclasses.replace(reference, revision=commits[reference.name]))
    return f"{fixed}#{split}" if split else fixed


def commit_of(reference: HubReference) -> str:
    """Returns the commit of a reference: the Hub's, or the cache's if the Hub cannot be reached."""
    try:
        return repo_of(reference).commit()
    except OSError as error:
        # It may be a misspelt local path, about which a network that is down says nothing.
        if reference.is_short and error.errno is None:
            raise type(error)(f"no such local path, and {error}") from error
        raise


def repo_of(reference: HubReference) -> HubRepo:
    """Returns the repository of a reference."""
    return HubRepo("dataset", reference.repo, reference.revision)
