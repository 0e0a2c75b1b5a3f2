"""Downloads models and adapters from the Hugging Face Hub into its usual cache.

if is_hub_model("google/paligemma-3b-pt-224"):
    folder = fetch("google/paligemma-3b-pt-224@main")      # safetensors with config.json
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from paligemma_lib.hub.huggingface_refusals import (
    CACHE_SETTING,
    check_installed,
    huggingface_refusals,
)
from paligemma_lib.hub.huggingface_repos import HubRepo, api
from paligemma_lib.runtime.disk_space import check_download
from paligemma_lib.runtime.sizes import gib

_NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[^@\s]+))?")
_SUFFIXES = (".npz", ".safetensors", ".json", ".bin", ".pt", ".gguf", ".msgpack", ".model")
_SHOWN = 5  # files in a message


def is_name(name: str) -> bool:
    """Returns whether a name is OWNER/NAME, without a revision."""
    found = _NAME.fullmatch(name)
    return found is not None and found["revision"] is None


def is_hub_model(name: str) -> bool:
    """Returns whether `hub.fetch` would download this name from the Hugging Face Hub.

    OWNER/NAME is such a name if there is neither such a path nor a folder OWNER here, and it does
    not end as a file of weights does: a misspelt local path is not looked for elsewhere.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return False
    path = Path(found["repo"])
    return not (path.suffix in _SUFFIXES or Path(name).exists() or path.parent.is_dir())


def fetch(name: str) -> Path:
    """Returns the local folder of a model or an adapter, or its one `.npz` file.

    Files are kept in the cache of huggingface_hub, by commit. A download that broke off goes on
    where it was. With HF_HUB_OFFLINE, the cache alone is asked.

    Args:
      name: OWNER/NAME, perhaps with @ and a branch, a tag or a commit.

    Raises:
      FileNotFoundError: there is no such repository or revision, or it holds no weights.
      PermissionError: the model is gated or private, and the token does not open it.
      ConnectionError: the Hub cannot be reached, and the cache lacks files.
      OSError: there is not enough disk space.
      ImportError: huggingface_hub is not installed.
      ValueError: the Hub's answer is malformed.
    """
    repo = _parsed(name)
    commit = _commit(repo)
    sizes = repo.sizes(commit)
    files = _wanted(repo, sizes)
    if missing := [file for file in files if file not in repo.cached(commit, files)]:
        from huggingface_hub import constants

        needed = sum(sizes[file] for file in missing)
        check_download(repo.name, needed, Path(constants.HF_HUB_CACHE), CACHE_SETTING)
        with huggingface_refusals(repo.name, repo.page):
            api().snapshot_download(repo.repo, revision=commit, allow_patterns=files)
    return _place(repo, commit, files)


def fetch_adapter(name: str) -> Path | None:
    """Returns the local folder of an adapter; None if the repository is of something else.

    Raises:
      OSError, ImportError, ValueError: as `fetch`.
    """
    repo = _parsed(name)
    sizes = repo.sizes(_commit(repo))
    is_adapter = "adapter_config.json" in sizes and "config.json" not in sizes
    return fetch(name) if is_adapter else None


def cached_path(name: str) -> Path | None:
    """Returns what `fetch` would return; None if files of it are still to be downloaded."""
    from huggingface_hub.errors import RevisionResolutionError

    repo = _parsed(name)
    try:
        found = api().resolve_revision(repo.repo, revision=repo.revision, local_files_only=True)
        commit = str(found.resolved)
        files = _wanted(repo, repo.sizes(commit))
    except (RevisionResolutionError, OSError, ValueError):
        return None
    return _place(repo, commit, files) if len(repo.cached(commit, files)) == len(files) else None


def fetch_config(name: str) -> Path | None:
    """Returns a folder with the config.json of a model; None if it has none, as one in `.npz`.

    Raises:
      OSError, ImportError, ValueError: as `fetch`.
    """
    repo = _parsed(name)
    commit = _commit(repo)
    if "config.json" not in repo.sizes(commit):
        return None
    with huggingface_refusals(repo.name, repo.page):
        return Path(api().hf_hub_download(repo.repo, "config.json", revision=commit)).parent


def access(name: str) -> str:
    """Checks access to a model without downloading it; returns a message with its size.

    Raises:
      OSError, ImportError, ValueError: as `fetch`.
    """
    repo = _parsed(name)
    commit = _commit(repo)
    sizes = repo.sizes(commit)
    files = _wanted(repo, sizes)
    from huggingface_hub import constants, hf_hub_url

    with huggingface_refusals(repo.name, repo.page):
        # Anyone may list a gated repository. Whether this token may read it, a file of it tells.
        api().get_hf_file_metadata(url=hf_hub_url(repo.repo, files[0], revision=commit))
    needed = sum(sizes[file] for file in files)
    check_download(repo.name, needed, Path(constants.HF_HUB_CACHE), CACHE_SETTING)
    return f"may be read, {gib(needed)} to download"


def _parsed(name: str) -> HubRepo:
    check_installed(name)
    if (found := _NAME.fullmatch(name)) is None:
        raise ValueError(f"{name} is no model of the Hugging Face Hub: expected OWNER/NAME")
    return HubRepo("model", found["repo"], found["revision"] or "main")


def _commit(repo: HubRepo) -> str:
    try:
        return repo.commit()
    except (FileNotFoundError, ConnectionError) as error:
        # It may be a misspelt local path, about which a network that is down says nothing.
        if error.errno is None:
            raise type(error)(f"no such local path, and {error}") from error
        raise


def _wanted(repo: HubRepo, sizes: Mapping[str, int]) -> list[str]:
    """Returns the files that loading needs: no code, no pickles, no other formats."""
    top = [file for file in sizes if "/" not in file]
    weights = [file for file in top if file.endswith(".safetensors")]
    others = [file for file in top if file.endswith((".json", ".model"))]
    arrays = [file for file in top if file.endswith(".npz")]
    if weights:
        return sorted([*weights, *others])
    if len(arrays) == 1:
        return sorted([*arrays, *(file for file in others if file.endswith(".model"))])
    found = ", ".join(sorted(sizes)[:_SHOWN]) or "no files"
    raise FileNotFoundError(
        f"{repo.name} has no .safetensors and {len(arrays) or 'no'} .npz files at its top, "
        f"expected a model: it has {found}. See {repo.page}"
    )


def _place(repo: HubRepo, commit: str, files: list[str]) -> Path:
    cached = repo.cached(commit, files)
    if lacking := [file for file in files if file not in cached]:
        raise ConnectionError(f"{repo.name}: {lacking[0]} did not come. Run this again")
    arrays = [cached[file] for file in files if file.endswith(".npz")]
    return Path(arrays[0]) if arrays else Path(cached[files[0]]).parent
