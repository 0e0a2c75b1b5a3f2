import collections
import io
import json

import numpy as np
import pytest
from data_cases import captions_of, example, photo, write_captions, write_tfrecord
from PIL import Image
from pipeline_cases import RECORDS, SIZE, captions_in, digest, evaluate, take, train

from paligemma_lib.batch import check
from paligemma_lib.data import decode_image, from_jsonl, from_tfrecords, order
from paligemma_lib.testing import tiny_captions, tiny_tokenizer


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> str:
    return write_captions(tmp_path_factory.mktemp("data"), RECORDS)


@pytest.fixture(scope="module")
def source(pattern):
    return from_tfrecords(pattern)


def test_batches_keep_the_contract(source):
    for batch in take(train(source), 10):
        check(batch, newline=tiny_tokenizer().newline)
        assert sorted(batch) == ["image", "loss_weight", "position", "segment", "text"]


def test_an_epoch_has_every_image_once_with_all_its_captions(source):
    batches = train(source, batch_size=10)
    for _ in range(2):
        rows = [(batch, row) for batch in take(batches, 5) for row in range(10)]
        found = sorted(captions_in(*each) for each in rows)
        assert found == sorted(captions_of(number) for number in range(RECORDS))


def test_pixels_are_those_that_decode_image_gives(source):
    numbers = {tuple(captions_of(number)): number for number in range(RECORDS)}
    (batch,) = take(train(source), 1)
    for row in range(8):
        data = photo(numbers[tuple(captions_in(batch, row))])
        np.testing.assert_array_equal(batch["image"][row], decode_image(data, SIZE))


def test_batches_are_the_same_for_any_number_of_processes_and_after_a_restart(source, capsys):
    steps, restart = 64, 37
    tables = {
        processes: [
            digest(parts)
            for parts in zip(
                *(
                    take(train(source, process_index=index, process_count=processes), steps)
                    for index in range(processes)
                ),
                strict=True,
            )
        ]
        for processes in (1, 2, 4, 8)
    }
    resumed = [
        digest([batch]) for batch in take(train(source, start_step=restart), steps - restart)
    ]
    with capsys.disabled():
        print("\nstep  P=1          P=2          P=4          P=8          from step 37")
        for step in range(steps):
            row = [tables[processes][step] for processes in tables]
            row += resumed[step - restart : step - restart + 1] if step >= restart else []
            print(f"{step:>4}  " + " ".join(row))
    assert tables[2] == tables[1] and tables[4] == tables[1] and tables[8] == tables[1]
    assert resumed == tables[1][restart:]
    assert len(set(tables[1])) == steps


def test_another_seed_gives_other_batches(source):
    assert digest(take(train(source), 1)) != digest(take(train(source, seed=1), 1))


def test_processes_read_only_what_is_theirs(tmp_path, monkeypatch):
    """Bytes read by one of four processes in twenty epochs, and in an evaluation."""
    source = from_tfrecords(write_captions(tmp_path, 200))
    opened, _ = source._opened
    epoch = sum(map(len, opened.read(range(200))))
    read, read_one = [], opened._read
    monkeypatch.setattr(opened, "_read", lambda place: read.append(read_one(place)) or read[-1])
    take(train(source, process_index=1, process_count=4), 20 * 200 // 8)
    share = 20 * epoch / 4
    ahead = 100 * epoch / 200  # at most so many records are read before they are asked for
    assert 0.95 * share < sum(map(len, read)) < 1.05 * share + ahead
    read.clear()
    evaluate(source, process_index=1, process_count=4)
    assert len(read) == 50


def test_one_caption_each_epoch_and_all_before_any_repeats(source):
    found = collections.defaultdict(list)
    batches = train(source, batch_size=10, captions="sample")
    for _ in range(5 * 10):  # ten epochs
        batch = next(batches)
        assert batch["segment"].max() == 1
        for row in range(10):
            (caption,) = captions_in(batch, row)
            found[batch["image"][row].tobytes()].append(caption)
    assert len(found) == RECORDS
    by_image = {decode_image(photo(n), SIZE).tobytes(): captions_of(n) for n in range(RECORDS)}
    for image, captions in found.items():
        expected = by_image[image]
        for first in range(0, 10 - len(expected) + 1, len(expected)):
            assert sorted(captions[first : first + len(expected)]) == sorted(expected)


def test_sampling_does_not_depend_on_where_the_run_was_resumed(source):
    whole = take(train(source, captions="sample"), 30)[21:]
    resumed = take(train(source, captions="sample", start_step=21), 9)
    assert [digest([batch]) for batch in whole] == [digest([batch]) for batch in resumed]


def test_starting_late_costs_what_starting_early_costs(source, monkeypatch):
    read = []
    opened, _ = source._opened
    original = opened._read
    monkeypatch.setattr(opened, "_read", lambda place: read.append(place) or original(place))
    batch = next(train(source, start_step=10_000_000))
    check(batch, newline=tiny_tokenizer().newline)
    assert len(read) < 200


def test_uint8_has_the_same_pixels_in_whole_levels(source):
    (floats,), (levels,) = take(train(source), 1), take(train(source, image_dtype="uint8"), 1)
    assert levels["image"].dtype == np.uint8
    check(levels, newline=tiny_tokenizer().newline)
    difference = (floats["image"] + 1) * 127.5 - levels["image"]
    assert difference.min() > -0.01 and difference.max() < 1.01


def test_crops_are_parts_of_the_image_and_follow_from_the_example(source):
    def cropped(**options):
        return train(source, min_crop_area=0.3, **options)

    batches = take(cropped(), 4)
    numbers = {tuple(captions_of(number)): number for number in range(RECORDS)}
    boxes = order.crop_boxes(np.arange(3 * 8, 4 * 8), min_area=0.3, seed=0)
    for row, (top, left, height, width) in enumerate(boxes * [30, 40, 30, 40]):
        data = photo(numbers[tuple(captions_in(batches[3], row))])  # 40 by 30 pixels
        top, left, height, width = (round(float(side)) for side in (top, left, height, width))
        part = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
        buffer = io.BytesIO()
        part.save(buffer, "PNG")
        expected = decode_image(buffer.getvalue(), SIZE)
        np.testing.assert_array_equal(batches[3]["image"][row], expected)
    assert digest(take(cropped(start_step=3), 1)) == digest(batches[3:])
    parts = [cropped(start_step=3, process_index=index, process_count=2) for index in range(2)]
    assert digest([next(part) for part in parts]) == digest(batches[3:])


def test_half_of_the_images_are_mirrored_and_which_follows_from_the_example(source):
    def flipped(**options):
        return train(source, horizontal_flip=True, **options)

    def boxes(**options):
        return train(source, min_crop_area=0.3, **options)

    plain, batches = take(train(source), 4), take(flipped(), 4)
    turned = []
    for before, after in zip(plain, batches, strict=True):
        np.testing.assert_array_equal(before["text"], after["text"])
        for old, new in zip(before["image"], after["image"], strict=True):
            turned.append(not np.array_equal(old, new))
            np.testing.assert_allclose(old[:, ::-1] if turned[-1] else old, new, atol=1e-5)
    np.testing.assert_array_equal(turned, order.flipped(np.arange(32), seed=0))
    assert 6 < sum(turned) < 26
    assert digest(take(flipped(start_step=3), 1)) == digest(batches[3:])
    # A part of the image is chosen first, then flipped.
    for cut, both in zip(take(boxes(), 4), take(boxes(horizontal_flip=True), 4), strict=True):
        for old, new in zip(cut["image"], both["image"], strict=True):
            assert min(np.abs(old - new).max(), np.abs(old[:, ::-1] - new).max()) < 1e-5


def test_texts_say_left_where_a_flipped_image_has_it(tmp_path):
    said = ("a dog left of a cat", "a dog right of a cat")
    (tmp_path / "0.jpg").write_bytes(photo(0))
    line = {"image": "0.jpg", "prefix": "what is left ?", "suffix": said[0]}
    (tmp_path / "data.jsonl").write_text(json.dumps(line) + "\n")
    batches = train(from_jsonl(tmp_path / "data.jsonl"), horizontal_flip=True)
    flipped = order.flipped(np.arange(16), seed=0)
    assert 2 < sum(flipped) < 14
    tokenizer = tiny_tokenizer()
    for step, batch in enumerate(take(batches, 2)):
        rows = flipped[step * 8 :]
        for row, record, turned in zip(range(8), batches.texts(step), rows, strict=False):
            assert record.captions == (said[int(turned)],)
            text, segment = batch["text"][row], batch["segment"][row]
            assert tokenizer.decode(text[segment == 1].tolist()).strip() == said[int(turned)]
            assert ("right" in tokenizer.decode(text[segment == 0].tolist())) == turned


def test_captions_are_lowercased_if_asked(source):
    (plain,), (lower,) = take(train(source), 1), take(train(source, lowercase=True), 1)
    assert captions_in(lower) == [caption.lower() for caption in captions_in(plain)]


def test_a_records_own_prefix_comes_before_the_runs(tmp_path):
    records = [
        example({"image": [photo(n)], "image_id": [b"x"], "captions": [b"yes"], "ask": [ask]})
        for n, ask in enumerate([b"answer one", b"answer two"])
    ]
    path = write_tfrecord(tmp_path / "a", records)
    for field, expected in ((None, {"say"}), ("ask", {"answer one", "answer two"})):
        (batch,) = take(train(from_tfrecords(path, prefix=field), batch_size=2, prefix="say"), 1)
        prefixes = [batch["text"][row][batch["segment"][row] == 0] for row in range(2)]
        assert {tiny_tokenizer().decode(ids).rstrip("\n") for ids in prefixes} == expected


def test_remote_data_give_the_same_batches(source):
    remote = from_tfrecords(write_captions("ram://pipeline", RECORDS))
    assert digest(take(train(remote), 3)) == digest(take(train(source), 3))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_has_every_example_once_and_fills_up_the_last_batch(source, processes):
    parts = [
        evaluate(source, batch_size=12, process_index=index, process_count=processes)
        for index in range(processes)
    ]
    assert [len(part) for part in parts] == [5] * processes  # 50 in batches of 12
    ids, valid = [], []
    for step in zip(*parts, strict=True):
        for batch in step:
            check(batch, newline=tiny_tokenizer().newline)
            assert len(batch["valid"]) == 12 // processes
            ids += batch["image_id"][batch["valid"]].tolist()
            valid += batch["valid"].tolist()
    assert ids == [f"{number}.png" for number in range(RECORDS)]
    assert valid == [True] * RECORDS + [False] * 10


def test_evaluation_prompts_alone_need_little_room(source):
    prompt = tiny_tokenizer().encode_prefix("caption en")
    for batch in evaluate(source, captions="none", text_len=len(prompt)):
        np.testing.assert_array_equal(batch["text"], np.tile(prompt, (8, 1)))
        assert not batch["loss_weight"].any()


def test_evaluation_pixels_are_those_that_decode_image_gives(source):
    (first, *_) = evaluate(source, image_dtype="uint8")
    for number in range(8):
        pixels = decode_image(photo(number), SIZE, dtype="uint8")
        np.testing.assert_array_equal(first["image"][number], pixels)


def test_an_empty_source_raises(tmp_path):
    with pytest.raises(ValueError, match="has no records"):
        next(train(from_tfrecords(write_tfrecord(tmp_path / "a", []))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captions": "none"}, r"captions='none', expected one of \('packed', 'sample'\)"),
        ({"image_dtype": "bfloat16"}, "image_dtype='bfloat16', expected one of"),
        ({"on_corrupt_image": "skip"}, "on_corrupt_image='skip', expected one of"),
        ({"batch_size": 9, "process_count": 2}, "batch_size 9 is not a multiple of 2 processes"),
        (
            {"process_index": 2, "process_count": 2},
            "process_index=2, expected a whole",
        ),
        ({"process_count": 0}, "process_count=0, expected a whole number from 1 to"),
        ({"min_crop_area": 0}, "min_crop_area=0, expected a finite number above 0"),
        ({"start_step": -1}, "start_step=-1, expected a whole number from 0 to"),
        ({"text_len": 0}, "text_len=0, expected a whole number from 1 to"),
    ],
)
def test_arguments_out_of_range_raise(source, options, message):
    with pytest.raises(ValueError, match=message):
        train(source, **options)


def test_every_tiny_caption_survives_the_pipeline(source):
    """The stand-ins themselves: no two records of these tests share all captions."""
    assert len({tuple(captions_of(number)) for number in range(RECORDS)}) == RECORDS
    assert len(set(tiny_captions())) == 384
