"""Resolves, lists and finds repositories of the Hugging Face Hub, asking it or its cache.

repo = HubRepo("model", "google/paligemma-3b-pt-224", "main")
commit = repo.commit()
repo.sizes(commit)                            # {"config.json": 1031, ...}
repo.cached(commit, ["config.json"])          # {"config.json": "~/.cache/..."}
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from paligemma_lib.hub.huggingface_refusals import huggingface_refusals

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MAX_FILES = 2_000_000
_WEIGHTS = (".safetensors", ".npz")


@dataclasses.dataclass(frozen=True)
class HubRepo:
    """A revision of a repository.

    Attributes:
      kind: type of the repository, as huggingface_hub names it.
      repo: OWNER/NAME.
      revision: branch, tag or commit.
    """

    kind: Literal["model", "dataset"]
    repo: str
    revision: str

    @property
    def name(self) -> str:
        """Repository and revision, for messages and records."""
        return f"{self.repo}@{self.revision}"

    @property
    def page(self) -> str:
        """URL of the repository's page."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' * (self.kind == 'dataset')}{self.repo}"

    def commit(self) -> str:
        """Returns the commit: the Hub's, or the cache's if the Hub cannot be reached.

        Raises:
          OSError, ImportError, ValueError: as `huggingface_refusals`, or the answer is no commit.
        """
        with huggingface_refusals(self.name, self.page):
            from huggingface_hub import is_offline_mode

            found = api().resolve_revision(
                self.repo,
                repo_type=self.kind,
                revision=self.revision,
                local_files_only=is_offline_mode(),  # else it warns of what was asked for
            )
        if not re.fullmatch(r"[0-9a-f]{40}", commit := str(found.resolved)):
            raise ValueError(f"{self.name}: {commit[:80]!r} is not a commit")
        return commit

    def sizes(self, commit: str) -> dict[str, int]:
        """Returns path -> bytes of all files, from the cache if they were listed before.

        Offline, of a model that another program has put into the cache unlisted, they are those of
        its files that are there. Whether these are all, its reader finds; of a data set, nothing
        would.

        Raises:
          OSError, ImportError: as `huggingface_refusals`.
          ValueError: there are too many files, a size is none, or a name leads out of the folder.
        """
        with huggingface_refusals(self.name, self.page):
            sizes = _sizes(self, commit)
        for file, size in sizes.items():
            if not isinstance(file, str) or type(size) is not int or size < 0:
                raise ValueError(f"{self.name} has a file {str(file)[:80]!r} without a size")
            if {"", ".", ".."} & {*file.split("/")} or "\0" in file:
                raise ValueError(f"{self.name} has a file of the name {file[:80]!r}: not fetched")
        return sizes

    def cached(self, commit: str, files: Sequence[str]) -> dict[str, str]:
        """Returns the paths of those files that are in the cache."""
        from huggingface_hub import try_to_load_from_cache

        found: Mapping[str, object] = {
            file: try_to_load_from_cache(self.repo, file, repo_type=self.kind, revision=commit)
            for file in files
        }
        return {file: path for file, path in found.items() if isinstance(path, str)}


def api() -> HfApi:
    """Returns a client of the Hub."""
    from huggingface_hub import HfApi

    return HfApi(library_name="paligemma_lib")


def _sizes(repo: HubRepo, commit: str) -> dict[str, int]:
    from huggingface_hub import RepoFile, get_cached_repo_tree, is_offline_mode
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        entries: Iterable = get_cached_repo_tree(repo.repo, repo_type=repo.kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        if is_offline_mode() and repo.kind == "model":
            found = _cached_sizes(repo, commit)
            if any(file.endswith(_WEIGHTS) for file in found):
                return found
        entries = api().list_repo_tree(
            repo.repo, recursive=True, revision=commit, repo_type=repo.kind
        )
    entries = list(itertools.islice(entries, _MAX_FILES + 1))
    if len(entries) > _MAX_FILES:
        raise ValueError(f"it has more than {_MAX_FILES:,} files: give one of its folders")
    return {each.path: each.size for each in entries if isinstance(each, RepoFile)}


def _cached_sizes(repo: HubRepo, commit: str) -> dict[str, int]:
    """Returns path -> bytes of the files in the cache, which need not be all."""
    from huggingface_hub import snapshot_download

    # Without a listing, it returns the folder whatever it holds; if there is none, it raises.
    folder = Path(
        snapshot_download(repo.repo, repo_type=repo.kind, revision=commit, local_files_only=True)
    )
    files = itertools.islice((each for each in folder.rglob("*") if each.is_file()), _MAX_FILES)
    return {each.relative_to(folder).as_posix(): each.stat().st_size for each in files}
