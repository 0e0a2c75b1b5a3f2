"""Downloads models from Kaggle with kagglehub, with errors that say what to do.

if is_kaggle("google/paligemma/jax/paligemma-3b-pt-224"):
    path = fetch("google/paligemma/jax/paligemma-3b-pt-224")
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from paligemma_lib.runtime.disk_space import no_space

# owner/model/framework/variation, or with /version.
_HANDLE = re.compile(r"[\w-]+/[\w.-]+/\w+/[\w.-]+(/\d+)?")


def is_kaggle(name: str) -> bool:
    """Returns whether `hub.fetch` would download this name from Kaggle."""
    # A missing local file such as a/b/c/d.npz matches the pattern, too: it is not sent to Kaggle.
    path = Path(name).expanduser()
    return bool(_HANDLE.fullmatch(name)) and path.suffix != ".npz" and not path.exists()


@contextlib.contextmanager
def kaggle_refusals(handle: str) -> Iterator[None]:
    """Converts errors of kagglehub in a `with` block to those that `hub.fetch` raises.

    Args:
      handle: the Kaggle model, for the messages.
    """
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    page = "https://www.kaggle.com/models/" + "/".join(handle.split("/")[:2])
    try:
        yield
    except UnauthenticatedError as error:
        raise PermissionError(_licence_or_login(handle, page)) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise PermissionError(_licence_or_login(handle, page, status)) from error
        if status == 404:
            raise FileNotFoundError(
                f"Kaggle has no model {handle} (HTTP 404): see {page} for its variations"
            ) from error
        raise ConnectionError(f"Kaggle did not send {handle}: {error}. Try again later") from error
    except (requests.RequestException, DataCorruptionError) as error:
        raise ConnectionError(
            f"{handle} was not downloaded completely from Kaggle: {error}. Check the network and "
            f"run this again, download it at {page} and give the local file, or, if it was "
            f"downloaded before, add its version (such as {handle}/1)"
        ) from error
    # This comes after them, since exceptions of requests are subclasses of OSError, too.
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            from kagglehub.config import get_cache_folder

            room = Path(get_cache_folder())
            raise no_space(error, handle, room, "KAGGLEHUB_CACHE to another folder") from error
        raise
    except Exception as error:  # of an archive that is damaged, or an answer of another form
        told = (str(error).splitlines() or [""])[0][:200]
        if isinstance(error, ValueError) and "credentials" in told:
            raise ValueError(
                f"{told}: write it again: https://www.kaggle.com/settings/api"
            ) from error
        raise ConnectionError(
            f"{handle} could not be had from Kaggle ({type(error).__name__}: {told}). Run this "
            f"again, or download it at {page} and give the local file"
        ) from error


def fetch(handle: str) -> Path:
    """Returns the one `.npz` file of a model, in kagglehub's cache. Raises as `hub.fetch`."""
    import kagglehub

    with kaggle_refusals(handle):
        folder = Path(kagglehub.model_download(handle))
    files = sorted(folder.rglob("*.npz"))
    if len(files) != 1:
        found = ", ".join(str(file) for file in files) or "none"
        raise FileNotFoundError(
            f"Kaggle's {handle} has {len(files)} .npz files, expected one: {found}. Choose a "
            "variation for JAX, or give the path of a file"
        )
    return files[0]


def _licence_or_login(handle: str, page: str, status: int | None = None) -> str:
    from kagglehub.config import get_kaggle_credentials

    refused = f"Kaggle refuses {handle}" + (f" (HTTP {status})" if status else "")
    # 401 says that credentials are invalid. Any other refusal of an account with credentials means
    # that it has not accepted the licence.
    if status != 401 and get_kaggle_credentials() is not None:
        return (
            f"{refused}: sign in at {page} with the account of your token and accept the "
            "licence there, then run this again"
        )
    return (
        f"{refused}: no valid Kaggle credentials were found. Accept the licence at {page}, make a "
        "token at https://www.kaggle.com/settings/api, and set KAGGLE_API_TOKEN to it, or call "
        "kagglehub.login()"
    )
