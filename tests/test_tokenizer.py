import io

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma_lib import tokenizer
from paligemma_lib.testing import tiny_captions, tiny_tokenizer
from paligemma_lib.tokenizer import Tokenizer, load


def train(**options) -> bytes:
    """A SentencePiece model with PaliGemma's conventions, but for `options`."""
    model = io.BytesIO()
    conventions = {
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "user_defined_symbols": ["\n"],
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(tiny_captions()),
        model_writer=model,
        vocab_size=320,
        hard_vocab_limit=False,
        minloglevel=2,
        **(conventions | options),
    )
    return model.getvalue()


def test_a_prefix_is_bos_text_and_a_newline_of_its_own():
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode_prefix("caption en")
    assert ids[0] == 2 and ids[-1] == tokenizer.newline
    assert "".join(map(tokenizer.piece, ids[1:-1])) == "caption▁en"
    assert tokenizer.encode_prefix("") == [2, tokenizer.newline]


def test_a_suffix_is_text_and_eos():
    ids = tiny_tokenizer().encode_suffix("a dog runs")
    assert ids[-1] == 1
    assert "".join(map(tiny_tokenizer().piece, ids[:-1])) == "a▁dog▁runs"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0▁")))
def test_any_text_comes_back_as_it_was(text):
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer.encode_suffix(text)) == text


def test_decoding_stops_at_eos_and_leaves_out_bos_and_padding():
    tokenizer = tiny_tokenizer()
    suffix = tokenizer.encode_suffix("a dog")
    assert tokenizer.decode([2, *suffix, *tokenizer.encode_suffix("more"), 0, 0]) == "a dog"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad_id": 3, "unk_id": 0}, r"has the ids pad, eos, bos, unk = \(3, 1, 2, 0\), expected"),
        ({"pad_id": -1}, r"pad, eos, bos, unk = \(-1, 1, 2, 3\)"),
        ({"user_defined_symbols": []}, "encodes a newline as .* expected one id"),
        ({"add_dummy_prefix": True}, "changes text"),
        ({"remove_extra_whitespaces": True}, "changes text"),
        ({"normalization_rule_name": "nmt_nfkc"}, "changes text"),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, "changes text"),
    ],
)
def test_a_tokenizer_with_other_conventions_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(train(**options))


def test_the_conventions_alone_are_accepted():
    assert Tokenizer(train()).encode_suffix("") == [1]


def test_a_tokenizer_of_another_size_than_the_model_is_refused(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train())
    size = load(path).vocab_size
    assert load(path, model_vocab=size).vocab_size == size
    with pytest.raises(ValueError, match=f"has {size} pieces, the model's vocabulary has 257152"):
        load(path, model_vocab=257_152)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file; expected a SentencePiece model"):
        load(tmp_path / "nothing.model")
    path = tmp_path / "tokenizer.model"
    path.write_text('{"model": {}}')
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        load(path)
    with open(path, "wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(ValueError, match="larger than the limit of 64 MiB: not a tokenizer"):
        load(path)


def test_paligemmas_own_pieces(shared):
    tokenizer = load(shared / "tokenizer" / "paligemma_tokenizer_rebuilt.model", 257_152)
    assert tokenizer.encode_prefix("caption en") == [2, 21209, 659, 108]
    assert tokenizer.newline == 108
    assert tokenizer.encode_suffix("<loc0000><seg000>") == [256000, 257024, 1]
    assert tokenizer.decode(tokenizer.encode_suffix("A dog  runs .")) == "A dog  runs ."


def test_a_trained_tokenizer_encodes_any_text():
    texts = [f"a {colour} ball {number}" for colour in ("red", "blue") for number in range(50)]
    own = Tokenizer(tokenizer.train(texts, 300), "own", 300)
    for text in (*texts, "Äpfel \U0001f34e, 2 €"):
        assert own.decode(own.encode_suffix(text)) == text
    assert len(own.encode_suffix("a red ball 7")) < 8
    assert tokenizer.train(texts, 300) == tokenizer.train(texts, 300)


def test_a_character_that_is_cut_off_is_left_out():
    tokenizer = tiny_tokenizer()
    for text in ("a é", "a 犬", "a 🐕"):
        ids = tokenizer.encode_suffix(text)[:-1]
        for length in range(3, len(ids)):
            assert tokenizer.decode(ids[:length]) == "a "
            assert tokenizer.decode([*ids[:length], 1]) == "a "
        assert tokenizer.decode(ids) == text


def test_bytes_that_are_no_characters_stay_visible():
    tokenizer = tiny_tokenizer()
    first = next(k for k in range(512) if tokenizer.piece(k) == "<0x00>")
    for data in (b"\x80", b"\xe4A", b"\xff\x80\x80\x80", b"\xef\xbf\xbd"):
        assert "\ufffd" in tokenizer.decode([first + byte for byte in data])


@pytest.mark.parametrize("token", ["<image>", "<bos>", "<eos>", "<pad>"])
def test_control_tokens_in_a_prompt_are_refused_and_in_a_caption_are_letters(token):
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match=f"has {token}: leave it out"):
        tokenizer.encode_prefix(f"{token}caption en")
    assert tokenizer.decode(tokenizer.encode_suffix(f"a {token}")) == f"a {token}"
    assert tokenizer.encode_prefix("detect <loc0000><seg000>")


@pytest.mark.parametrize("text", ["a \ud800", b"caption en", None, 7, ["caption en"]])
def test_what_is_no_text_is_refused(text):
    for encode in (tiny_tokenizer().encode_prefix, tiny_tokenizer().encode_suffix):
        with pytest.raises(ValueError, match="is not Unicode|of type .* expected str"):
            encode(text)


@pytest.mark.parametrize("token", [-1, 512, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(token):
    with pytest.raises(ValueError, match=f"token id {token}"):
        tiny_tokenizer().decode([10, token])


@pytest.mark.parametrize("vocab_size", [100, 5000])
def test_a_tokenizer_that_cannot_be_trained_is_refused(vocab_size):
    with pytest.raises(ValueError, match=f"cannot train a tokenizer of {vocab_size} pieces"):
        tokenizer.train(["a red ball"] * 9, vocab_size)


@pytest.mark.parametrize("vocab_size", [0, True, 300.0, 2**31])
def test_a_size_of_a_vocabulary_is_a_whole_number(vocab_size):
    with pytest.raises(ValueError, match="vocab_size=.*, expected a whole number from 1"):
        tokenizer.train(["a red ball"] * 9, vocab_size)


def test_a_newline_at_the_end_of_a_prefix_is_not_doubled():
    tokenizer = tiny_tokenizer()
    for end in ("\n", "\r\n", "\n\n"):
        assert tokenizer.encode_prefix(f"caption en{end}") == tokenizer.encode_prefix("caption en")
    assert tokenizer.encode_prefix("\n") == tokenizer.encode_prefix("")
