"""Where batches go on, what they say of data that are wrong, and how they end."""

import subprocess
import sys

import pytest
from data_cases import captions_of, example, photo, write_captions, write_tfrecord
from pipeline_cases import RECORDS, captions_in, digest, evaluate, take, train

from paligemma_lib.batch import check
from paligemma_lib.data import from_tfrecords, replace_corrupt
from paligemma_lib.testing import tiny_tokenizer


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> str:
    return write_captions(tmp_path_factory.mktemp("data"), RECORDS)


@pytest.fixture(scope="module")
def source(pattern):
    return from_tfrecords(pattern)


def test_the_step_says_where_to_go_on(source):
    batches = train(source, start_step=5)
    take(batches, 7)
    assert batches.step == 12
    assert digest(take(batches, 1)) == digest(take(train(source, start_step=12), 1))


def test_ids_of_a_steps_images(source):
    batches = train(source, start_step=3)
    ids = [record.image_id for record in batches.texts(3)]
    batch = next(batches)
    told = {f"{number}.png": set(captions_of(number)) for number in range(RECORDS)}
    for row, image_id in enumerate(ids):
        assert set(captions_in(batch, row)) == told[image_id]


def test_a_image_that_does_not_decode_raises_with_its_id(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 20, broken=(13,)))
    batches = train(source)
    with pytest.raises(
        ValueError, match=r"image 13.png \(.*captions-1.tfrecord, record 3\) is not a"
    ):
        take(batches, 3)
    step = batches.step
    with pytest.raises(ValueError, match="image 13.png"):  # and does so again
        next(batches)
    assert batches.step == step
    with pytest.raises(ValueError, match=r"image 13.png"):
        evaluate(source)


def test_images_that_do_not_decode_are_replaced_if_asked_always_by_the_same(tmp_path):
    broken = (3, 13, 14)
    source = from_tfrecords(write_captions(tmp_path, 20, broken=broken))
    batches = train(source, on_corrupt_image="replace", batch_size=10)
    found = take(batches, 6)
    told = sorted(problem.split()[1] for problem in batches.corrupt_images)
    assert told == sorted(f"{number}.png" for number in broken)
    for batch in found:
        check(batch, newline=tiny_tokenizer().newline)
    captions = [captions_in(batch, row) for batch in found[:2] for row in range(10)]
    whole = [captions_of(number) for number in range(20) if number not in broken]
    assert all(each in captions for each in whole)
    again = [captions_in(batch, row) for batch in found[2:4] for row in range(10)]
    assert sorted(again) == sorted(captions)
    resumed = take(train(source, on_corrupt_image="replace", batch_size=10, start_step=3), 3)
    assert [digest([b]) for b in resumed] == [digest([b]) for b in found[3:]]
    parts = [
        train(source, on_corrupt_image="replace", batch_size=10, process_index=i, process_count=2)
        for i in range(2)
    ]
    for batch in found:
        assert digest([next(part) for part in parts]) == digest([batch])


@pytest.mark.parametrize("kind", ["undecodable", "unreadable"])
def test_above_a_share_of_damaged_records_it_raises(tmp_path, kind):
    broken = (3, 4, 13, 14, 15) if kind == "undecodable" else ()
    source = from_tfrecords(write_captions(tmp_path, 20, broken=broken))
    if kind == "unreadable":
        offsets = source._opened[0]._offsets[0]
        data = bytearray((tmp_path / "captions-0.tfrecord").read_bytes())
        for number in (3, 4, 7):
            data[int(offsets[number]) + 20] ^= 1
        (tmp_path / "captions-0.tfrecord").write_bytes(data)
    batches = train(replace_corrupt(source, max_corrupt=0.02), batch_size=10)
    for _ in range(2):  # and does so again
        with pytest.raises(ValueError, match=r"3 of 20 records are damaged so far"):
            take(batches, 3)


def test_if_nothing_decodes_it_raises(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 6, broken=tuple(range(6))))
    with pytest.raises(
        ValueError, match=r"record \d and 5 other records are damaged.*image \d.png"
    ):
        next(train(source, on_corrupt_image="replace"))


def test_text_that_is_too_long_raises_with_the_image(source):
    with pytest.raises(
        ValueError, match=r"image \d+.png \(.*tfrecord, record \d+\): the text needs"
    ):
        next(train(source, text_len=24))
    batch = next(train(source, text_len=24, truncate=True))
    check(batch, newline=tiny_tokenizer().newline)


def test_a_image_without_captions_cannot_be_learnt_but_evaluated(tmp_path):
    record = example({"image": [photo(0)], "image_id": [b"0.png"], "captions": []})
    source = from_tfrecords(write_tfrecord(tmp_path / "a", [record]))
    with pytest.raises(ValueError, match=r"image 0.png \(.*\): it has no caption to train on"):
        next(train(source))
    (batch,) = evaluate(source)
    assert batch["valid"].tolist() == [True] + [False] * 7
    assert not batch["loss_weight"].any()


def test_damaged_data_raise_with_their_place(tmp_path):
    source = from_tfrecords(write_captions(tmp_path, 20, files=1))
    len(source)
    path = tmp_path / "captions-0.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"captions-0.tfrecord, record \d+ .* is damaged"):
        take(train(source), 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_program_may_end_while_batches_are_made(pattern):
    """Threads that call Python while it shuts down used to abort the program, now and then."""
    code = f"""
from paligemma_lib.data import from_tfrecords, train_batches
from paligemma_lib.testing import tiny_tokenizer

batches = train_batches(from_tfrecords({pattern!r}), tiny_tokenizer(), image_size=224,
                        text_len=128, batch_size=8, seed=0)
next(batches)
"""
    for _ in range(8):
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=100)


@pytest.mark.slow
def test_a_program_ends_by_an_error_while_others_read(pattern):
    """The error's traceback kept the threads, which then waited for Python, and Python for them."""
    code = f"""
import time
from paligemma_lib.data import examples, from_tfrecords, train_batches
from paligemma_lib.testing import tiny_tokenizer

def load(self, slots):
    if slots[0] == 0:
        raise ValueError("these are damaged")
    time.sleep(2)
    raise ValueError("too late")

examples.Examples.load = load
next(train_batches(from_tfrecords({pattern!r}), tiny_tokenizer(), image_size=224, text_len=128,
                   batch_size=8, seed=0))
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 1
    assert found.stderr.endswith("ValueError: these are damaged\n")


@pytest.mark.slow
def test_memory_stays_flat(source):
    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20

    batches = train(source, image_size=64, batch_size=16)
    take(batches, 500)
    start = resident()
    for _ in range(3000):
        next(batches)
    assert resident() - start < 30  # MiB; 3000 batches are 2.2 GiB
