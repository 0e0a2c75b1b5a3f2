"""tokenizer.json alone: the same ids as of the model that it was made of, or a refusal."""

import json

import pytest
from fuzzing import EXAMPLES, damaged, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

import paligemma_lib as pg
from paligemma_lib.tokenizer import Tokenizer, load
from paligemma_lib.tokenizer.fast_tokenizer import tokenizer_json
from paligemma_lib.tokenizer.json_reading import model_of_json
from paligemma_lib.tokenizer.sentencepiece_model import NAMES, pieces_of

NANO = pg.tokenizer.load(pg.captioner.tokenizer_of("nano"))
PIECES = pieces_of(NANO.serialized())
TEXT = st.text(st.sampled_from("abcdehlnortu  .,\n\t?0é日\N{DOG}<>"), max_size=40)


def stated(**changes):
    """The tokenizer.json of nano, with other fields at the top or, after a _, in its model."""
    content = json.loads(json.dumps(tokenizer_json(NANO.serialized())))
    for name, value in changes.items():
        (content["model"] if name.startswith("_") else content)[name.removeprefix("_")] = value
    return content


def as_transformers_converts():
    """As its GemmaConverter makes it: a tab for its byte, and merges of all pieces, as lines."""
    vocab = stated()["model"]["vocab"]
    del vocab["<0x09>"]
    vocab["\t"] = PIECES.index(next(piece for piece in PIECES if piece.text == "<0x09>"))
    merges = [
        (PIECES[number].score, text[:cut], text[cut:])
        for text, number in vocab.items()
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    merges.sort(key=lambda each: (each[0], len(each[1]), len(each[2])), reverse=True)
    split = {"String": " "}, "MergedWithPrevious"
    return stated(
        _vocab=vocab,
        _merges=[f"{a} {b}" for _, a, b in merges],
        pre_tokenizer={"type": "Split", "pattern": split[0], "behavior": split[1], "invert": False},
    )


@pytest.fixture(scope="module", params=[stated, as_transformers_converts])
def read(request):
    return Tokenizer(model_of_json(json.dumps(request.param()).encode()))


def test_pieces_and_their_kinds_come_back(read):
    found = pieces_of(read.serialized())
    assert tuple(piece.text for piece in found[:4]) == NAMES
    assert [(each.text, each.kind) for each in found[4:]] == [
        (each.text, each.kind) for each in PIECES[4:]
    ]


@given(TEXT)
@example("a red cube and two  small\tgreen balls\n\nare on the grass .")
def test_ids_and_texts_are_the_same(read, text):
    ids = NANO.encode_suffix(text)
    assert read.encode_suffix(text) == ids
    assert read.decode(ids) == NANO.decode(ids)


@pytest.mark.slow
def test_paligemma_s_own_tokenizer(shared):
    path = shared / "tokenizer" / "paligemma_tokenizer_rebuilt.model"
    ours = pg.tokenizer.load(path)
    found = Tokenizer(model_of_json(json.dumps(tokenizer_json(path.read_bytes())).encode()))
    texts = (shared / "flickr8k" / "captions_all.txt").read_text().splitlines()[:4000]
    texts += ["<loc0012><seg003> cat ; ", "   x  y\n\n\nz\t\t", "日本語 \N{DOG} don't"]
    assert [found.encode_suffix(each) for each in texts] == [
        ours.encode_suffix(each) for each in texts
    ]


def without(pairs, text):
    return [pair for pair in pairs if "".join(pair) != text]


MERGES = stated()["model"]["merges"]
FIRST, LAST = ("".join(MERGES[n]) for n in (0, -1))
VOCAB = stated()["model"]["vocab"]
TOKEN = {"id": len(VOCAB) + 1, "content": "<new>", "special": False}
BESIDE = {"id": VOCAB["\n"], "content": "\n", "rstrip": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "it has no model"),
        ({"_type": "WordPiece"}, "model.type is 'WordPiece', expected 'BPE'"),
        ({"_byte_fallback": False}, "model.byte_fallback is False"),
        ({"_continuing_subword_prefix": "##"}, "continuing_subword_prefix is '##'"),
        ({"normalizer": None}, "normalizer is None, expected .*Replace"),
        ({"normalizer": {"type": "NFKC"}}, "normalizer is .*NFKC"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "pre_tokenizer is .*ByteLevel"),
        ({"_vocab": ["a"]}, "model.vocab is no object of ids"),
        ({"_vocab": {**VOCAB, "zz": 9999}}, "leaves ids out"),
        ({"_vocab": {"a": 0, "b": 1}}, "its first pieces are a, b, expected <pad>"),
        ({"_vocab": {n: k for k, n in enumerate([*NAMES, ""])}}, "lacks the byte <0x00>"),
        ({"_vocab": {**VOCAB, "": len(VOCAB)}}, "a piece is empty"),
        ({"_vocab": {**VOCAB, "\ud800": len(VOCAB)}}, "half of a character"),
        ({"_vocab": {**VOCAB, "zq" * 200: len(VOCAB)}}, "longer than 256"),
        (
            {"_vocab": {**VOCAB, "ĳĳ": len(VOCAB)}, "added_tokens": []},
            "its merges to ĳĳ are not those",
        ),
        ({"added_tokens": None}, "added_tokens are no list"),
        ({"added_tokens": [TOKEN]}, "it adds the token '<new>', which the model does not have"),
        ({"added_tokens": [BESIDE]}, "is found by what stands beside it"),
        ({"_merges": None}, "model.merges is no list"),
        ({"_merges": [["a"]]}, r"model.merges has \['a'\], which is no pair"),
        ({"_merges": without(MERGES, FIRST)}, f"its merges to {FIRST} are not those"),
        ({"_merges": [[*pair] for pair in reversed(MERGES)] + MERGES}, "do not follow one another"),
    ],
)
def test_what_sentencepiece_cannot_say_is_refused(tmp_path, changes, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(stated(**changes)))
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(path) in str(error.value) and "--tokenizer FILE" in str(error.value)


def read_or_refused(data):
    try:
        Tokenizer(model_of_json(data)).encode_suffix("a dog\x00 — 狗\n runs")
    except ValueError as error:
        assert type(error) is ValueError, error


@EXAMPLES
def test_any_damage_is_refused_or_read(examples):
    fuzz(examples, read_or_refused, damaged(json.dumps(stated()).encode()))


@EXAMPLES
def test_any_value_in_any_place(examples):
    odd = st.sampled_from([None, True, -1, 1e9, "", "a", "\ud800", [], [[]], {}, {"a": []}])
    places = st.sampled_from(
        [("model",), ("model", "vocab"), ("model", "vocab", "a"), ("model", "merges"),
         ("model", "merges", 0), ("model", "merges", 0, 1), ("added_tokens",),
         ("added_tokens", 0), ("added_tokens", 1, "id"), ("added_tokens", 1, "content"),
         ("added_tokens", 4, "rstrip"), ("normalizer",), ("pre_tokenizer",)]
    )  # fmt: skip

    def check(case):
        (*way, last), value = case
        content = place = stated()
        for step in way:
            place = place[step]
        place[last] = value
        read_or_refused(json.dumps(content).encode())

    fuzz(examples, check, st.tuples(places, odd))
