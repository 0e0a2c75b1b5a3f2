"""tokenizer.json: its pieces are those of the model; Hugging Face tokenizers encode as we do."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import paligemma_lib as pg
from paligemma_lib.tokenizer.fast_tokenizer import tokenizer_json
from paligemma_lib.tokenizer.sentencepiece_model import pieces_of

NANO = pg.tokenizer.load(pg.captioner.tokenizer_of("nano"))
TEXT = st.text(st.sampled_from("abcdehlnortu  .,\n\t?0é日\N{DOG}<>"), max_size=40)


@pytest.fixture(scope="module")
def fast():
    tokenizers = pytest.importorskip("tokenizers", reason="needs transformers and torch")
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(NANO.serialized())))


def test_pieces_are_those_of_sentencepiece():
    pieces = pieces_of(NANO.serialized())
    assert len(pieces) == NANO.vocab_size
    assert all(piece.text.replace("\n", "\\n") == NANO.piece(n) for n, piece in enumerate(pieces))


def test_ids_and_names_are_those_that_the_model_expects():
    found = tokenizer_json(NANO.serialized())
    assert found["model"]["vocab"] | {"<pad>": 0, "<eos>": 1, "<bos>": 2} == found["model"]["vocab"]
    added = {each["content"]: each["id"] for each in found["added_tokens"]}
    assert added["<image>"] == NANO.vocab_size
    assert added["\n"] == NANO.newline
    texts = {piece.text for piece in pieces_of(NANO.serialized())}
    assert all({a, b, a + b} <= texts for a, b in found["model"]["merges"])


@given(TEXT)
@example("a dog runs on the grass .")
@example("  two  spaces   and\n\nlines ")
def test_hugging_face_encodes_as_we_do(fast, text):
    ours = NANO.encode_suffix(text)[:-1]
    assert fast.encode(text, add_special_tokens=False).ids == ours
    assert fast.encode(text).ids == [2, *ours]
    assert fast.decode(ours) == NANO.decode(ours)


@pytest.mark.slow
def test_paligemma_s_own_tokenizer(shared):
    tokenizers = pytest.importorskip("tokenizers", reason="needs transformers and torch")
    path = shared / "tokenizer" / "paligemma_tokenizer_rebuilt.model"
    ours = pg.tokenizer.load(path)
    fast = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(path.read_bytes())))
    for text in (
        "a dog runs .",
        "<loc0012><seg003> cat ; ",
        "   x  y\n\n\nz",
        "日本語 \N{DOG} don't",
    ):
        assert fast.encode(text, add_special_tokens=False).ids == ours.encode_suffix(text)[:-1]
    assert fast.token_to_id("<image>") == 257_152


@pytest.mark.parametrize("data", [b"", b"\x0a\xff", b"not a model", b"\x0a\x02\x0a\x00" * 2])
def test_what_is_no_model_is_told(data):
    with pytest.raises(ValueError, match="it is not a SentencePiece model"):
        tokenizer_json(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    try:
        pieces = pieces_of(data)
    except ValueError as error:
        assert "not a SentencePiece model" in str(error)
    else:
        assert all(isinstance(piece.text, str) for piece in pieces)
