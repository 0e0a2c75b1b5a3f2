"""One image at a time: the captions of `generate`, words as they come, nothing traced twice."""

import contextlib
import io

import captioning_cases as cases
import jax
import numpy as np
import pytest
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.captioner import Captioner
from paligemma_lib.decode import Beam, Greedy, Sample
from paligemma_lib.serving import Writer
from paligemma_lib.testing import tiny_tokenizer

ROOM = 8
PROMPT = "caption en"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    params = jax.tree.map(jax.numpy.asarray, cases.random_params())
    return Captioner(cases.CONFIG, params, tiny_tokenizer())


@pytest.fixture(scope="module")
def writer(captioner) -> Writer:
    return Writer(captioner, prompt_tokens=48, max_new_tokens=ROOM, look_seconds=0.0)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[bytes]:
    folder = cases.write_images(tmp_path_factory.mktemp("images"), ["1.png", "2.jpg", "3.png"])
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("length", [1, 5, ROOM])
@pytest.mark.parametrize(
    "sampler", [Greedy(), Beam(3), Sample(temperature=2.0)], ids=["greedy", "beam", "sample"]
)
def test_captions_are_those_of_generate(writer, captioner, images, sampler, length):
    size = captioner.config.vision.image_size
    wanted = pg.decode.generate(
        captioner.config,
        captioner.params,
        np.stack([pg.data.decode_image(image, size) for image in images]),
        captioner.tokenizer,
        prompt=PROMPT,
        sampler=sampler,
        max_new_tokens=length,
        key=jax.random.key(7),
    )
    for number, want in enumerate(wanted):
        answers = writer.write(images[number], PROMPT, sampler, length, seed=7, number=number)
        *_, answer = answers
        assert answer.text == want.text
        assert answer.seconds > 0
        for one, other in zip(
            (answer.caption, *answer.caption.alternatives),
            (want, *want.alternatives),
            strict=True,
        ):
            assert one.tokens == other.tokens
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_words_are_shown_as_they_come(writer, images):
    *parts, whole = writer.write(images[0], PROMPT, Greedy(), ROOM)
    assert len(parts) >= 4
    assert not any(part.over for part in parts)
    assert whole.over
    lengths = [len(part.text) for part in parts]
    assert lengths == sorted(lengths)
    assert 0 < lengths[0] < lengths[-1] <= len(whole.text)


def test_a_fast_model_is_looked_at_seldom(captioner, writer, images):
    patient = Writer(captioner, prompt_tokens=48, max_new_tokens=ROOM, look_seconds=60.0)
    seen, often = (
        list(each.write(images[0], PROMPT, Greedy(), ROOM)) for each in (patient, writer)
    )
    assert len(seen) == 3  # the first token, the next one, all others
    assert len(seen) < len(often)
    assert seen[-1].caption == often[-1].caption


def test_images_are_turned_upright(writer):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    lying, upright = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(lying, "PNG", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(upright, "PNG")
    one, other, stored = (
        list(writer.write(data, PROMPT, Greedy(), ROOM))[-1].caption
        for data in (lying.getvalue(), upright.getvalue(), _without_exif(lying))
    )
    assert one == other
    assert one.logprobs != stored.logprobs


def _without_exif(file: io.BytesIO) -> bytes:
    plain = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(file))).save(plain, "PNG")
    return plain.getvalue()


def test_nothing_is_traced_twice(writer, images):
    def traced(call):
        events = []

        def listen(event, _seconds, **_):
            events.append(event)

        jax.monitoring.register_event_duration_secs_listener(listen)
        with contextlib.closing(contextlib.ExitStack()) as stack:
            stack.callback(jax.monitoring.unregister_event_duration_listener, listen)
            call()
        return [event for event in events if "trace" in event or "compile" in event]

    def write(image, prompt, length, **random):
        *_, answer = writer.write(image, prompt, Beam(2), length, **random)
        assert answer.caption

    assert traced(lambda: jax.jit(lambda x: x + 1)(0))  # the listener hears
    writer.compile(Beam(2))
    arrays = sum(array.nbytes for array in jax.live_arrays())
    assert not traced(lambda: write(images[0], PROMPT, ROOM))
    assert not traced(lambda: write(images[1], "what is there", 5, seed=99, number=3))
    assert sum(array.nbytes for array in jax.live_arrays()) == arrays


def test_a_bad_image_and_a_long_prompt_are_errors(writer, images):
    with pytest.raises(ValueError, match="not a complete JPEG"):
        list(writer.write(b"no image", PROMPT, Greedy(), ROOM))
    with pytest.raises(ValueError, match="at most 48 are allowed"):
        list(writer.write(images[0], "word " * 60, Greedy(), ROOM))


@pytest.mark.slow
def test_parameters_may_be_split_over_devices(run_on_devices):
    found = run_on_devices(
        2,
        """
        import io
        import captioning_cases as cases, jax
        import PIL.Image
        import paligemma_lib as pg
        from paligemma_lib.captioner import Captioner
        from paligemma_lib.serving import Writer
        from paligemma_lib.testing import tiny_tokenizer

        params = cases.random_params()
        mesh = pg.sharding.make_mesh()
        file = io.BytesIO()
        PIL.Image.effect_noise((30, 30), 90).save(file, "PNG")
        for layout in ("tensor", "replicated"):
            shardings = pg.sharding.param_shardings(mesh, params, layout)
            split = jax.device_put(params, shardings)
            captioner = Captioner(cases.CONFIG, split, tiny_tokenizer())
            writer = Writer(captioner, prompt_tokens=16, max_new_tokens=4)
            *_, answer = writer.write(file.getvalue(), "", pg.decode.Beam(2), 4)
            print(answer.caption.tokens)
        """,
    )
    one, other = found.splitlines()
    assert one == other
