"""Weights and tokenizers from where they are published, as whole local files.

    path = fetch("google/paligemma/jax/paligemma-3b-pt-224")       # Kaggle
    path = fetch("gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz")
    path = fetch("checkpoints/my.npz")                             # a local file or folder
    path = fetch("nano")                                           # the small model that is here
    path = fetch_tokenizer()

Public objects of `gs://` come over HTTPS, which needs no credentials and no other library, and
tells size and checksum before the first byte. A download takes its name only when it is whole.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from paligemma_lib.atomic import whole_file

CACHE = Path("~/.cache/paligemma_lib")
NANO = Path(__file__).parent / "nano" / "nano.params.f16.npz"
TOKENIZER = "gs://big_vision/paligemma_tokenizer.model"

_GCS = "https://storage.googleapis.com"
_TOKENIZER_BYTES = 4_264_023
TOKENIZER_SHA256 = re.compile("8986bb4f[0-9a-f]{50}168fc6")
_KAGGLE_HANDLE = re.compile(r"[\w-]+/[\w.-]+/\w+/[\w.-]+(/\d+)?")
_BLOCK = 1 << 20
_TIMEOUT = 60  # seconds without a byte
_BROKEN = (TimeoutError, ConnectionResetError, ConnectionAbortedError, ssl.SSLError)


def fetch(source: str | os.PathLike[str], cache: str | os.PathLike[str] = CACHE) -> Path:
    """Returns a local path, after a download where one is needed.

    Args:
      source: "nano", the model that comes with this library, beside its tokenizer.model; a local
        file; a folder of safetensors, as it is; the folder of a run, of which the one `.npz`
        file is returned;
        `gs://bucket/object` of a public bucket; or a Kaggle model, `owner/model/jax/variation`
        with or without `/version`, of which the one `.npz` file is returned.
      cache: where files from `gs://` are kept. One that is there already is not fetched again.
        kagglehub keeps its own, see KAGGLEHUB_CACHE.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: a folder holds several `.npz` files.
      PermissionError: credentials are missing, or a licence has not been accepted.
      ConnectionError: no network, or a download that broke off or was damaged.
      OSError: no room on the disk.
    """
    name = os.fspath(source)
    if name == "nano":
        if not NANO.is_file():
            raise FileNotFoundError(
                f"{NANO} is not there: this installation lacks the model that comes with the "
                "library. Install it again, or give another checkpoint"
            )
        return NANO
    if name.startswith("gs://"):
        return _fetch_gcs(name, Path(cache).expanduser())
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").exists():
        return exported(path)
    if path.exists():
        return path
    if is_kaggle(name):
        return _fetch_kaggle(name)
    raise FileNotFoundError(
        f"{name} is not there. Expected a local file or folder, gs://bucket/object, nano, or a "
        "Kaggle model such as google/paligemma/jax/paligemma-3b-pt-224"
    )


def exported(folder: Path) -> Path:
    """The one `.npz` file in the folder of a run, or the folder if it has none.

    Raises:
      ValueError: there are several.
    """
    found = sorted(folder.glob("*.npz"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ValueError(f"{folder} holds several .npz files: give one of {names}")
    return found[0] if found else folder


def is_kaggle(name: str) -> bool:
    """Whether `fetch` would ask Kaggle for it."""
    path = Path(name).expanduser()
    return bool(_KAGGLE_HANDLE.fullmatch(name)) and path.suffix != ".npz" and not path.exists()


def fetch_tokenizer(
    source: str | os.PathLike[str] = TOKENIZER, cache: str | os.PathLike[str] = CACHE
) -> Path:
    """Returns a local path of a tokenizer: by default the official one, checked by its hash.

    Args:
      source: as in `fetch`; a local file may be any tokenizer.
      cache: as in `fetch`.

    Raises:
      ConnectionError: what came is not the official tokenizer; else as in `fetch`.
    """
    name = os.fspath(source)
    if name != TOKENIZER:
        return fetch(name, cache)
    return _fetch_gcs(name, Path(cache).expanduser(), _problem_with_tokenizer)


def _problem_with_tokenizer(path: Path) -> str | None:
    size = path.stat().st_size
    if size != _TOKENIZER_BYTES:
        return f"has {size:,} bytes, expected {_TOKENIZER_BYTES:,}"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not TOKENIZER_SHA256.fullmatch(found):
        return f"has the sha256 {found}, expected 8986bb4f...168fc6"
    return None


def _fetch_gcs(
    name: str, cache: Path, problem: Callable[[Path], str | None] = lambda path: None
) -> Path:
    bucket, _, object_name = name.removeprefix("gs://").partition("/")
    if not bucket or {"", ".", ".."} & {bucket, *object_name.split("/")}:
        raise ValueError(f"{name!r} names no file; expected gs://bucket/folder/file")
    path = cache / "gs" / bucket / object_name
    if path.is_file() and not problem(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as file:
            _download(name, f"{_GCS}/{bucket}/{urllib.parse.quote(object_name)}", file)
            file.flush()
            if wrong := problem(Path(file.name)):
                raise ConnectionError(f"{name} {wrong}. It is not used; give a local file instead")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(error, name, path.parent) from error
        raise
    return path


def _download(name: str, url: str, file: BinaryIO) -> None:
    """Copies an object of Google Cloud Storage to `file` and checks its size and crc32c."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            size, expected = _size_and_crc32c(name, answer.headers)
            free = shutil.disk_usage(os.path.dirname(file.name)).free
            if size > free:
                raise OSError(errno.ENOSPC, f"needs {size:,} bytes")
            checksum, received = google_crc32c.Checksum(), 0
            while block := answer.read(_BLOCK):
                file.write(block)
                checksum.update(block)
                received += len(block)
    except urllib.error.HTTPError as error:
        raise _refusal(error, name) from error
    except (urllib.error.URLError, http.client.HTTPException, *_BROKEN) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(
            f"{name} could not be fetched from {url}: {reason}. Check the network (proxies are "
            "taken from HTTPS_PROXY) and run this again, or give a local file"
        ) from error
    if received != size:
        raise ConnectionError(
            f"{name} broke off: {received:,} of {size:,} bytes came. Nothing is kept; run it again"
        )
    if checksum.digest() != expected:
        raise ConnectionError(
            f"{name} was damaged on its way: its crc32c is {checksum.digest().hex()}, expected "
            f"{expected.hex()}. Nothing is kept; run this again"
        )


def _size_and_crc32c(name: str, headers: http.client.HTTPMessage) -> tuple[int, bytes]:
    hashes = ",".join(headers.get_all("x-goog-hash", []))
    found = re.search(r"crc32c=([A-Za-z0-9+/]{6}==)", hashes)
    size = headers.get("Content-Length", "")
    if not found or not size.isdecimal():
        raise ConnectionError(
            f"the answer for {name} has no size or checksum, which Google Cloud Storage always "
            "sends: something stands between. Nothing is kept; download it otherwise"
        )
    return int(size), base64.b64decode(found[1])


def _refusal(error: urllib.error.HTTPError, name: str) -> OSError:
    if error.code == 404:
        return FileNotFoundError(f"{name} does not exist (HTTP 404): check bucket and name")
    if error.code in (401, 403):
        return PermissionError(
            f"{name} is not public (HTTP {error.code}). Copy it with your own credentials, "
            f"`gcloud storage cp {name} .`, and give the local file"
        )
    return ConnectionError(f"{name} could not be fetched (HTTP {error.code} {error.reason})")


@contextlib.contextmanager
def kaggle_refusals(handle: str) -> Iterator[None]:
    """Tells what Kaggle answers in the block as the errors that `fetch` raises."""
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
            f"{handle} did not come whole from Kaggle: {error}. Check the network and run this "
            f"again, download it at {page} and give the local file, or, where it came before, "
            f"add its version (such as {handle}/1)"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            from kagglehub.config import get_cache_folder

            room = Path(get_cache_folder())
            raise _no_room(error, handle, room, "KAGGLEHUB_CACHE to another folder") from error
        raise


def _fetch_kaggle(handle: str) -> Path:
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


def _no_room(
    error: OSError, name: str, folder: Path, instead: str = "`cache` to another folder"
) -> OSError:
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    return OSError(
        error.errno,
        f"no room for {name} in {folder}, where {free:,} bytes are free ({error.strerror}). "
        f"Nothing of it is used; make room, or set {instead}",
    )
