"""Converts errors of huggingface_hub to errors that say what to do.

with huggingface_refusals("nlphuji/flickr30k", "https://huggingface.co/datasets/nlphuji/flickr30k"):
    folder = huggingface_hub.snapshot_download("nlphuji/flickr30k", repo_type="dataset")
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from paligemma_lib.runtime.disk_space import no_space

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

CACHE_SETTING = "HF_HOME to another folder"

_TOKENS = "https://huggingface.co/settings/tokens"


def check_installed(name: str) -> None:
    """Raises ImportError if huggingface_hub, which `name` needs, cannot be imported."""
    try:
        from huggingface_hub import get_cached_repo_tree  # noqa: F401  # the newest that is needed
    except ImportError as error:
        raise ImportError(
            f"{name} is on the Hugging Face Hub, which needs huggingface_hub: pip install "
            "'huggingface_hub>=2.4'"
        ) from error


@contextlib.contextmanager
def huggingface_refusals(name: str, page: str, *, writes: bool = False) -> Iterator[None]:
    """Converts errors of huggingface_hub in a `with` block to those that `hub.fetch` raises.

    Args:
      name: the repository, perhaps with a revision, for the messages.
      page: URL of the repository's page.
      writes: whether the block pushes to the repository; else it reads.

    Raises:
      ImportError: huggingface_hub is not installed.
    """
    check_installed(name)
    try:
        yield
    # All of them, since each transport of huggingface_hub has exceptions of its own.
    except Exception as error:
        raise _told(error, name, page, writes) from error


def _told(error: Exception, name: str, page: str, writes: bool) -> Exception:
    from huggingface_hub import constants, errors

    cause = _answer(error)
    if isinstance(cause, errors.HfHubHTTPError):
        return _refusal(cause, name, page, writes)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(error, name, Path(constants.HF_HUB_CACHE), CACHE_SETTING)
    if constants.is_offline_mode():
        if writes:
            return ConnectionError(
                f"{name} was not pushed, as HF_HUB_OFFLINE is set. Run this again with a network "
                "and HF_HUB_OFFLINE=0"
            )
        return ConnectionError(
            f"HF_HUB_OFFLINE is set, and the cache {constants.HF_HUB_CACHE} does not hold {name}, "
            "or only parts of it. Run this once with a network and HF_HUB_OFFLINE=0"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return error  # of the file system; it names the file
    if isinstance(cause, UnicodeEncodeError):  # names are quoted in addresses, tokens are sent
        return PermissionError(f"{name}: the token holds characters that no token has. {_login()}")
    if isinstance(error, ValueError):
        return ValueError(f"{name}: {_reason(str(error))}")
    why = f"{type(cause).__name__}: {_reason(str(cause))}"
    failed, kept = "downloaded completely from", "complete files are kept"
    if writes:
        failed, kept = "pushed to", "the Hub shows a push only when all of it has arrived"
    return ConnectionError(
        f"{name} was not {failed} the Hugging Face Hub ({why}). Check the network (proxies are "
        f"taken from HTTPS_PROXY) and run this again: {kept}"
    )


def _answer(error: BaseException) -> BaseException:
    """Returns the server's refusal in the chain of causes, or the first cause."""
    from huggingface_hub.errors import HfHubHTTPError

    # Where the Hub refuses and the cache is empty, huggingface_hub says the latter.
    while error.__cause__ is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _refusal(error: HfHubHTTPError, name: str, page: str, writes: bool) -> OSError:
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"{name} is gated (HTTP {status}): accept its conditions at {page}, signed in with "
            f"the account of your token. {_login()}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{name}: no such revision (HTTP {status}); see {page}/tree/main for its "
            "branches and tags. refs/convert/parquet is there only if the Hub could convert it"
        )
    # The Hub says of a private repository, too, that it is not there.
    if isinstance(error, errors.RepositoryNotFoundError):
        return FileNotFoundError(
            f"{name} is not on the Hugging Face Hub, or it is private (HTTP {status}): check "
            f"owner and name at {page}. {_login()}"
        )
    why = _reason(error.server_message or str(error))
    if status in (401, 403):
        owner = name.partition("/")[0]
        lacks = f"lacks write permission for {owner}" if writes else "must not read it"
        return PermissionError(
            f"the Hugging Face Hub refuses {name} (HTTP {status}: {why}): the token is not valid, "
            f"or {lacks}. {_login()}"
        )
    later = "limits how much you may ask. Wait some minutes" if status == 429 else "Try again later"
    return ConnectionError(
        f"the Hugging Face Hub did not {'take' if writes else 'send'} {name} "
        f"(HTTP {status}: {why}): {later}"
    )


def _token() -> str | None:
    from huggingface_hub import get_token

    with contextlib.suppress(Exception):  # it may ask a server for a new one
        return get_token()
    return None


def _login() -> str:
    found = "Your token is not enough: make another" if _token() else "No token was found: make one"
    return f"{found} at {_TOKENS}, and run `hf auth login`, or set HF_TOKEN to it"


def _reason(said: str) -> str:
    """Returns what an error says in one line, without what may be secret."""
    text = " ".join(said.split())
    # Addresses of storage are signed in their queries. A malformed header is quoted with its token.
    text = re.sub(r"\?\S+|\bhf_\w+|(?i:bearer)\s+[^\s'\"]+", "...", text)
    return text.replace(_token() or "\0", "...")[:200]
