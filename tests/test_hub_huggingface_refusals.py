"""What the Hugging Face Hub refuses, and why, in words for users; no token in any of them."""

import errno
import socket
import sys

import pytest
from hub_server import TOKEN, hub_here
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import LocalEntryNotFoundError

from paligemma_lib.hub.huggingface_refusals import huggingface_refusals

NAME, PAGE = "somebody/dogs@main", "https://huggingface.co/datasets/somebody/dogs"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_here(monkeypatch, tmp_path / "home") as server:
        server.add("datasets/somebody/dogs").commit({"a.csv": b"x"})
        yield server


@pytest.mark.parametrize(
    ("status", "kind", "why"),
    [
        (
            401,
            PermissionError,
            "refuses somebody/dogs@main (HTTP 401: Invalid user token.",
        ),
        (
            403,
            PermissionError,
            "refuses somebody/dogs@main (HTTP 403: not now): the token is not valid",
        ),
        (500, ConnectionError, "did not send somebody/dogs@main (HTTP 500: "),
    ],
)
def test_each_status_has_its_cure(hub, monkeypatch, status, kind, why):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.status = status
    with pytest.raises(kind) as caught, huggingface_refusals(NAME, PAGE):
        HfApi().whoami() if status == 401 else HfApi().dataset_info("somebody/dogs")
    told = str(caught.value)
    assert why in told and TOKEN not in told and "\n" not in told
    assert ("Try again later" if status == 500 else "run `hf auth login`, or set HF_TOKEN") in told


def test_a_push_that_is_refused_says_what_it_lacks_in_the_words_of_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.status, hub.said = 403, f"You need the permission repo.write, which {TOKEN} lacks"
    told = (
        r"refuses somebody/dogs@main \(HTTP 403: You need the permission repo.write, which ... "
        r"lacks\): the token is not valid, or lacks write permission for somebody\."
    )
    with pytest.raises(PermissionError, match=told), huggingface_refusals(NAME, PAGE, writes=True):
        HfApi().create_repo("somebody/dogs", repo_type="dataset")


def test_a_push_that_breaks_off_says_nothing_of_downloads(monkeypatch):
    wrong = pytest.raises(ConnectionError, match="was not pushed to the Hugging Face Hub")
    with wrong as caught, huggingface_refusals(NAME, PAGE, writes=True):
        raise RuntimeError("reset")
    assert "download" not in str(caught.value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with (
        pytest.raises(ConnectionError, match="was not pushed, as HF_HUB_OFFLINE is set"),
        huggingface_refusals(NAME, PAGE, writes=True),
    ):
        raise RuntimeError("offline")


def test_a_limit_of_requests_is_told(hub):
    hub.status = 429
    with (
        pytest.raises(ConnectionError, match="HTTP 429.*Wait some minutes"),
        huggingface_refusals(NAME, PAGE),
    ):
        HfApi().dataset_info("somebody/dogs")


def test_a_hub_that_cannot_be_reached_is_told_with_the_first_cause(hub, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with (
        pytest.raises(
            ConnectionError, match="was not downloaded completely .*Connection refused.*network"
        ),
        huggingface_refusals(NAME, PAGE),
    ):
        HfApi().dataset_info("somebody/dogs")


def test_a_malformed_token_is_told_and_not_quoted(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secr\u00e9t")
    wrong = pytest.raises(PermissionError, match="characters that no token has")
    with wrong as caught, huggingface_refusals(NAME, PAGE):
        HfApi().dataset_info("somebody/dogs")
    assert "secr\u00e9t" not in str(caught.value)


def test_addresses_that_are_signed_and_tokens_are_left_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "company-token")
    said = f"https://cdn/x?X-Amz-Signature=abc Bearer xyz {TOKEN} company-token end"
    with pytest.raises(ConnectionError) as caught, huggingface_refusals(NAME, PAGE):
        raise RuntimeError(said)
    assert "(RuntimeError: https://cdn/x... ... ... ... end)" in str(caught.value)


def test_errors_of_the_disk_keep_their_kind():
    with (
        pytest.raises(
            OSError, match="not enough disk space for somebody/dogs@main .* set HF_HOME to another"
        ),
        huggingface_refusals(NAME, PAGE),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(PermissionError, match="'/cache'") as caught,
        huggingface_refusals(NAME, PAGE),
    ):
        raise PermissionError(errno.EACCES, "Permission denied", "/cache")
    assert caught.value.errno == errno.EACCES


def test_what_the_cache_lacks_offline_is_told(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with (
        pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set, and the cache"),
        huggingface_refusals(NAME, PAGE),
    ):
        raise LocalEntryNotFoundError("it is not there")


def test_without_the_package_its_installation_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with (
        pytest.raises(ImportError, match="pip install 'huggingface_hub>=2.4'"),
        huggingface_refusals(NAME, PAGE),
    ):
        pass
