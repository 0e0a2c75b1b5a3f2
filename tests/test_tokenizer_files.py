"""Tokenizer files that are not trusted: damaged ones, and what lies in their place."""

import json

import pytest
from fuzzing import EXAMPLES, damaged, fuzz
from hypothesis import strategies as st

from paligemma_lib.captioner import tokenizer_of
from paligemma_lib.testing import tiny_tokenizer
from paligemma_lib.tokenizer import Tokenizer, load
from paligemma_lib.tokenizer.fast_tokenizer import tokenizer_json

MODEL = tiny_tokenizer().serialized()


def read_or_refused(data):
    try:
        tokenizer = Tokenizer(data, "t.model")
    except ValueError as error:
        # UnicodeDecodeError and its like are ValueErrors too, but say nothing to a user.
        assert type(error) is ValueError and str(error).startswith("t.model ")
        return
    ids = tokenizer.encode_suffix("a dog\x00 — 狗\n runs") + list(range(tokenizer.vocab_size))
    assert isinstance(tokenizer.decode(token for token in ids if token != 1), str)
    tokenizer.encode_prefix("caption en")
    [tokenizer.piece(token) for token in range(tokenizer.vocab_size)]


@EXAMPLES
def test_any_damage_is_refused_or_read(examples):
    fuzz(examples, read_or_refused, damaged(MODEL))


def field(number, kind, payload):
    """A field of a protocol buffer; a later one of the same number replaces or extends it."""
    size = b""
    if kind == 2:
        rest = len(payload)
        while rest > 127:
            size, rest = size + bytes([rest & 127 | 128]), rest >> 7
        size += bytes([rest])
    return bytes([number << 3 | kind]) + size + payload


@EXAMPLES
def test_any_field_of_the_structure(examples):
    """Pieces, the trainer's and the normalizer's settings, with any type and content."""
    scalar = st.tuples(
        st.integers(1, 15), st.just(0), st.sampled_from([b"\0", b"\1", b"\xff\xff\3"])
    )
    text = st.tuples(st.integers(1, 15), st.just(2), st.binary(max_size=40))
    number = st.tuples(st.integers(1, 15), st.just(5), st.binary(min_size=4, max_size=4))
    inner = st.lists(st.one_of(scalar, text, number), min_size=1, max_size=3)
    outer = st.lists(st.tuples(st.integers(1, 5), inner), min_size=1, max_size=3)

    def check(fields):
        added = (field(n, 2, b"".join(field(*each) for each in content)) for n, content in fields)
        read_or_refused(MODEL + b"".join(added))

    fuzz(examples, check, outer)


def test_a_piece_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="t.model is not a SentencePiece model"):
        Tokenizer(MODEL + field(1, 2, field(1, 2, b"\xff\xfe")), "t.model")


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4264023\n")
    with pytest.raises(ValueError, match="tokenizer.model is not .*git lfs pull"):
        load(path)


def test_a_tokenizer_json_alone_is_read_and_no_other_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("paligemma_lib.hub.fetch_tokenizer", lambda: pytest.fail("downloads"))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer of PaliGemma's kind"):
        load(tokenizer_of(str(tmp_path)))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json(MODEL)))
    assert load(tokenizer_of(str(tmp_path))).vocab_size == Tokenizer(MODEL).vocab_size
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    assert tokenizer_of(str(tmp_path)) == tmp_path / "tokenizer.model"
