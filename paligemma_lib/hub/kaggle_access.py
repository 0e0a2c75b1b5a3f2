"""Checks whether a Kaggle model is in the local cache, and whether this account may download it.

if is_kaggle(handle) and cached_path(handle) is None:
    print(access(handle))              # PermissionError: accept the licence at https://...
"""

import os
import shutil
import stat
from pathlib import Path
from typing import Any

from paligemma_lib.hub.kaggle import kaggle_refusals
from paligemma_lib.runtime.sizes import gib

_SECRETS = ("kaggle.json", "access_token")


def cached_path(handle: str) -> Path | None:
    """Returns the folder of a model in kagglehub's cache; None: it is not there completely.

    Args:
      handle: the Kaggle model. With a version, only this one counts; without, the newest one.
    """
    from kagglehub.cache import get_cached_path
    from kagglehub.handle import parse_model_handle

    model = parse_model_handle(handle)
    # kagglehub stores version 3 in the folder .../3, and creates the file .../3.complete once it is
    # complete. The version 1 below only serves to find the folder around all versions.
    versions = Path(get_cached_path(model.with_version(1))).parent
    found = [path for path in versions.glob("*.complete") if path.stem.isdecimal()]
    if model.is_versioned():
        found = [path for path in found if path.stem == str(model.version)]
    newest = max(found, key=lambda path: int(path.stem), default=None)
    return None if newest is None else newest.with_suffix("")


def access(handle: str) -> str:
    """Checks access to a Kaggle model without downloading it; returns a message with its size.

    Raises:
      PermissionError: credentials are missing or wrong, or the licence has not been accepted.
      FileNotFoundError: there is no such model, or it does not have exactly one `.npz` file.
      ConnectionError: Kaggle cannot be reached.
      OSError: there is not enough disk space.
      ValueError: the file with the credentials is damaged.
    """
    from kagglehub.clients import build_kaggle_client
    from kagglehub.config import get_cache_folder, get_kaggle_credentials
    from kagglehub.exceptions import UnauthenticatedError
    from kagglehub.handle import parse_model_handle
    from kagglesdk.kaggle_env import is_in_kaggle_notebook
    from kagglesdk.models.types import model_api_service as api

    if is_in_kaggle_notebook():
        return "this notebook has its own access to Kaggle"
    model = parse_model_handle(handle)
    with kaggle_refusals(handle):
        if get_kaggle_credentials() is None:
            raise UnauthenticatedError
        with build_kaggle_client() as client:
            models = client.models.model_api_client
            if not model.is_versioned():
                current = models.get_model_instance(_about(model, api.ApiGetModelInstanceRequest))
                model = model.with_version(current.version_number)
            files = models.list_model_instance_version_files(
                _about(model, api.ApiListModelInstanceVersionFilesRequest)
            ).files
            weights = [file for file in files if file.name.endswith(".npz")]
            if len(weights) != 1:
                names = ", ".join(file.name for file in files) or "none"
                raise FileNotFoundError(
                    f"Kaggle's {handle} has {len(weights)} .npz files, expected one: {names}. "
                    "Choose a variation for JAX, or give the path of a file"
                )
            wanted = _about(model, api.ApiDownloadModelInstanceVersionRequest)
            wanted.path = weights[0].name
            # Kaggle checks the licence only when a download begins. The response is streamed, and
            # closed before its content is read.
            models.download_model_instance_version(wanted).close()
    size, cache = weights[0].size, Path(get_cache_folder())
    # The cache may not exist yet: then its disk is that of the nearest folder around it.
    place = next(path for path in (cache, *cache.parents) if path.exists())
    if (free := shutil.disk_usage(place).free) < size:
        raise OSError(
            f"{handle} needs {gib(size)}, and {gib(free)} are free in {cache}: "
            "free disk space, or set KAGGLEHUB_CACHE to another folder"
        )
    return f"licence accepted, {gib(size)} to download{_remarks()}"


def _about(model: Any, kind: type) -> Any:
    """Returns a request of class `kind` for a model."""
    request = kind()
    request.owner_slug, request.model_slug = model.owner, model.model
    request.framework, request.instance_slug = model.framework_enum(), model.variation
    if model.is_versioned():
        request.version_number = model.version
    return request


def _remarks() -> str:
    """Returns a warning if other users can read the credentials, or else an empty string."""
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    files = [folder / name for name in _SECRETS if (folder / name).is_file()]
    if open_to_others := [
        str(f) for f in files if f.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]:
        return f"; others can read your credentials: chmod 600 {' '.join(open_to_others)}"
    return ""
