"""Downloads public objects of Google Cloud Storage over HTTPS.

    path = fetch("gs://big_vision/paligemma_tokenizer.model", "~/.cache/paligemma_lib")

HTTPS needs no credentials and no client library, and the headers have the size and a checksum. A
file appears under its name only once it is complete and verified.
"""

from __future__ import annotations

import base64
import errno
import http.client
import os
import re
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from paligemma_lib.runtime.atomic import atomic_write
from paligemma_lib.runtime.disk_space import no_space

CACHE = Path("~/.cache/paligemma_lib")

_GCS = "https://storage.googleapis.com"
_BLOCK = 1 << 20
_TIMEOUT = 60  # seconds to wait for the next bytes, not for the whole download
# What a connection that breaks may raise while bytes are read: urllib wraps only errors of the
# request in URLError. Not all of OSError, which a full disk raises, too.
_BROKEN = (TimeoutError, ConnectionResetError, ConnectionAbortedError, ssl.SSLError)


def fetch(
    name: str,
    cache: str | os.PathLike[str] = CACHE,
    problem: Callable[[Path], str | None] = lambda path: None,
) -> Path:
    """Returns the local path of an object, downloading it unless it is in the cache.

    Args:
      name: `gs://bucket/object` in a public bucket.
      cache: folder in which downloads are stored.
      problem: returns what is wrong with a file, or None. A cached file with a problem is
        downloaded again; a download with a problem is discarded.

    Raises:
      FileNotFoundError, ValueError, PermissionError, ConnectionError, OSError: as `hub.fetch`.
    """
    bucket, _, object_name = name.removeprefix("gs://").partition("/")
    # ".." would lead to a path outside the cache.
    if not bucket or {"", ".", ".."} & {bucket, *object_name.split("/")}:
        raise ValueError(f"{name!r} does not name a file; expected gs://bucket/folder/file")
    path = Path(cache).expanduser() / "gs" / bucket / object_name
    if path.is_file() and not problem(path):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(path) as file:
            _download(name, f"{_GCS}/{bucket}/{urllib.parse.quote(object_name)}", file)
            file.flush()  # `problem` opens the file by its name, and must find all bytes
            if wrong := problem(Path(file.name)):
                raise ConnectionError(f"{name} {wrong}. It was not kept; give a local file instead")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(error, name, path.parent) from error
        raise
    return path


def _download(name: str, url: str, file: BinaryIO) -> None:
    """Copies an object of Google Cloud Storage to `file`, and checks its size and crc32c."""
    import google_crc32c  # not at the top: without downloads the package may be missing

    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            size, expected = _size_and_crc32c(name, answer.headers)
            free = shutil.disk_usage(os.path.dirname(file.name)).free
            if size > free:  # before the download, not after most of it
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
            f"{name}: the download was interrupted after {received:,} of {size:,} bytes. Nothing "
            "was kept; run this again"
        )
    if checksum.digest() != expected:
        raise ConnectionError(
            f"{name} was damaged in transit: its crc32c is {checksum.digest().hex()}, expected "
            f"{expected.hex()}. Nothing was kept; run this again"
        )


def _size_and_crc32c(name: str, headers: http.client.HTTPMessage) -> tuple[int, bytes]:
    # x-goog-hash may come as several headers, with other hashes. A crc32c is 4 bytes, big-endian:
    # in base64 six characters and "==".
    hashes = ",".join(headers.get_all("x-goog-hash", []))
    found = re.search(r"crc32c=([A-Za-z0-9+/]{6}==)", hashes)
    size = headers.get("Content-Length", "")
    if not found or not re.fullmatch(r"[0-9]{1,19}", size):
        raise ConnectionError(
            f"the response for {name} has no size or checksum, which Google Cloud Storage always "
            "sends: it may come from a proxy. Nothing was kept; download the file another way"
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
