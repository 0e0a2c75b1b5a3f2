"""The tokenizer of PaliGemma: fetched, and checked by its size and hash."""

import hashlib
import re

import pytest
from hub_cases import CONTENT, Bucket, files

from paligemma_lib import hub
from paligemma_lib.hub import gcs, official_tokenizer


@pytest.fixture
def server(monkeypatch):
    with Bucket().answering(monkeypatch) as server:
        monkeypatch.setattr(gcs, "_GCS", server.url)
        yield server


@pytest.fixture
def official(monkeypatch):
    """Makes CONTENT the official tokenizer."""
    monkeypatch.setattr(official_tokenizer, "_BYTES", len(CONTENT))
    found = hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(
        official_tokenizer, "TOKENIZER_SHA256", re.compile(f"{found[:8]}.*{found[-6:]}")
    )


def test_the_tokenizer_is_checked(server, tmp_path, official):
    path = hub.fetch_tokenizer(cache=tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.paths == ["/big_vision/paligemma_tokenizer.model"]
    path.write_bytes(CONTENT[:-1] + b"?")  # damaged since: fetched again
    assert hub.fetch_tokenizer(cache=tmp_path).read_bytes() == CONTENT
    assert len(server.paths) == 2


@pytest.mark.parametrize("other", [CONTENT[:-1], CONTENT[:-1] + b"?"])
def test_another_tokenizer_is_not_kept(server, tmp_path, official, other):
    server.content = server.hashed = other
    server.size = len(other)
    with pytest.raises(ConnectionError, match=r"bytes, expected 5,120,000|sha256.*expected 8986bb"):
        hub.fetch_tokenizer(cache=tmp_path)
    assert files(tmp_path) == []


def test_the_official_size_and_hash():
    assert official_tokenizer._BYTES == 4_264_023
    assert hub.TOKENIZER_SHA256.fullmatch("8986bb4f" + "0" * 50 + "168fc6")
    assert not hub.TOKENIZER_SHA256.fullmatch("8986bb4f" + "0" * 50 + "168fc7")
