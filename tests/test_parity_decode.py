"""transformers' `generate` on our exported parameters finds the same captions.

Both beam searches keep the same live beams. Theirs lets a beam end where EOS ranks among the K
likeliest of all continuations, ours anywhere; theirs also returns what was cut off. So they must
agree where K is so large that everything ranks, and elsewhere ours never scores less.
"""

import json

import captioning_cases
import decode_cases
import jax
import model_cases as cases
import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib import data, decode
from paligemma_lib.batch import EOS, PAD
from paligemma_lib.checkpoint import huggingface
from paligemma_lib.cli import main

REASON = "needs transformers and torch (pip install -e '.[parity]')"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

SLOTS = 10


@pytest.fixture(scope="module", params=cases.VERSIONS)
def both(request, tmp_path_factory):
    """Our model, theirs, images and prompts; the first caption soon comes to its end."""
    config, params = decode_cases.model(request.param)
    image, (prompt, length) = decode_cases.images(config, 4), decode_cases.prompts([4, 4, 4, 4])
    _, found = decode_cases.run(config, params, image, prompt, length, max_new_tokens=SLOTS)
    last = found.tokens[0, 0, 3]
    table = params["llm"]["embedder"]["input_embedding"]
    table = table.at[np.array([EOS, last])].set(table[np.array([last, EOS])])
    params = {**params, "llm": {**params["llm"], "embedder": {"input_embedding": table}}}
    folder = tmp_path_factory.mktemp("model") / "model"
    huggingface.export(jax.device_get(params), config, folder)
    theirs = transformers.PaliGemmaForConditionalGeneration.from_pretrained(folder).eval()
    return config, params, theirs, image, prompt, length


def their_tokens(both, slots=SLOTS, banned=(), **options):
    """int32[B * N, M], PAD after EOS."""
    config, _, theirs, image, prompt, _ = both
    # Their vocabulary has rows more, <image> among them, which ours has not.
    rows = config.language.vocab_size, theirs.config.text_config.vocab_size
    front = np.full((len(prompt), config.vision.num_tokens), config.language.vocab_size)
    ids = torch.from_numpy(np.concatenate([front, prompt], axis=1)).long()
    out = theirs.generate(
        input_ids=ids,
        pixel_values=torch.from_numpy(image).permute(0, 3, 1, 2),
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
        do_sample=False,
        suppress_tokens=[*banned, *range(*rows)],
        max_new_tokens=slots,
        pad_token_id=PAD,
        eos_token_id=EOS,
        **options,
    )
    new = out[:, ids.shape[1] :].numpy()
    new = np.where(np.cumsum(new == EOS, axis=1) - (new == EOS) > 0, PAD, new)
    return np.pad(new, ((0, 0), (0, slots - new.shape[1])), constant_values=PAD)


def our_tokens(both, sampler, slots=SLOTS, **options):
    """int32[B, N, M], PAD after EOS."""
    config, params, _, image, prompt, length = both
    _, found = decode_cases.run(
        config, params, image, prompt, length, sampler=sampler, max_new_tokens=slots, **options
    )
    return found.tokens


def test_greedy(both):
    ours = our_tokens(both, decode.Greedy())[:, 0]
    np.testing.assert_array_equal(their_tokens(both), ours)
    assert ours[0, -1] == PAD and np.any(ours[:, -1] != PAD)


def likelihood(both, tokens):
    """float32[B], of whole captions."""
    config, params, _, image, prompt, length = both
    return decode_cases.log_likelihood(config, params, image, prompt, length, tokens).sum(axis=1)


def test_beams_among_which_every_end_ranks(both):
    """Two letters and four slots: at most eight live beams with three continuations each."""
    banned, size = sorted(decode_cases.all_but(EOS, 100, 200)), 24
    options = {"num_beams": size, "length_penalty": 0.0, "early_stopping": "never"}
    theirs = their_tokens(
        both, slots=4, banned=banned, num_return_sequences=size, **options
    ).reshape(4, size, 4)
    ours = our_tokens(both, decode.Beam(size), slots=4, banned_tokens=banned)
    for found, expected in zip(ours, theirs, strict=True):
        ended = expected[np.any(expected == EOS, axis=1)]
        assert 3 <= len(ended) <= 15
        np.testing.assert_array_equal(found[0], ended[0])
        assert set(map(tuple, found[: len(ended)])) == set(map(tuple, ended))


def test_no_narrow_beam_of_theirs_finds_what_is_likelier(both):
    options = {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "never"}
    letters = sorted(decode_cases.all_but(EOS, *range(100, 110)))
    theirs = their_tokens(both, banned=letters, **options)
    ours = our_tokens(both, decode.Beam(3), banned_tokens=letters)[:, 0]
    ended = np.any(theirs == EOS, axis=1)
    assert ended.any() and np.all(np.any(ours == EOS, axis=1))
    assert np.all((likelihood(both, ours) >= likelihood(both, theirs) - 1e-4)[ended])


def test_the_script_captions_with_a_folder_that_they_have_saved(tmp_path):
    config, names = captioning_cases.CONFIG, ["1.png", "2.png", "3.png"]
    huggingface.export(captioning_cases.random_params(), config, tmp_path / "ours")
    theirs = transformers.PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    _, _, _, tokenizer, *options = captioning_cases.write_captioner(tmp_path)
    images = captioning_cases.write_images(tmp_path / "Images", names)
    out = tmp_path / "captions.jsonl"
    command = [str(images), "--checkpoint", str(tmp_path / "theirs"), "--tokenizer", tokenizer]
    assert main(["caption", *command, *options, "--out", str(out)]) == 0

    tokenizer = pg.tokenizer.load(tokenizer)
    pixels = [data.decode_image((images / n).read_bytes(), config.vision.image_size) for n in names]
    prompts = decode.pad_prompts([tokenizer.encode_prefix("caption en")] * len(names))
    tokens = their_tokens((config, None, theirs.eval(), np.stack(pixels), *prompts), slots=6)
    captions = [json.loads(line)["caption"] for line in out.read_text().splitlines()]
    assert captions == [tokenizer.decode(row).strip() for row in tokens]
    assert len(set(captions)) == 3
