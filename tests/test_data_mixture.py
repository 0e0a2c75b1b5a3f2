"""Several sources as one: whose records come how often, in what order, with which prompt."""

import json
from collections import Counter

import numpy as np
import pytest
from data_cases import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_cases import captions_in, digest, take, train
from run_cases import setup_of, write_run

from paligemma_lib.data.replacing import replace_corrupt
from paligemma_lib.data.sources import Mixture, Record
from paligemma_lib.data.sources.protocol import epoch_len, records_of
from paligemma_lib.run.batching import train_batches_of


class Numbered:
    """Records whose caption is the name of the source and the number of the record."""

    def __init__(self, name, count, prefix=None):
        self.name, self.count, self.prefix = name, count, prefix

    def __len__(self):
        return self.count

    def read(self, numbers):
        return [
            Record(photo(number), (f"{self.name} {number}",), f"{number}.png", self.prefix)
            for number in numbers
        ]

    def where(self, number):
        return f"{self.name}, row {number}"

    def fingerprint(self):
        return f"{self.name}{self.count}"


def mixed(counts, weights, prompts=None):
    sources = tuple(Numbered("abc"[k], count) for k, count in enumerate(counts))
    return Mixture(sources, tuple(weights), tuple(prompts or [""] * len(counts)))


sizes = st.lists(st.integers(1, 30), min_size=1, max_size=3)


@settings(deadline=None)
@given(sizes, st.data(), st.integers(0, 5))
def test_whole_weights_repeat_each_record_so_often_in_every_epoch(counts, data, epoch):
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(counts), max_size=len(counts)))
    mixture = mixed(counts, weights)
    length = epoch_len(mixture)
    assert length == np.dot(counts, weights)
    numbers, _ = records_of(mixture, epoch * length + np.arange(length), seed=3)
    often = Counter(numbers.tolist())
    expected = np.repeat(weights, counts)
    assert [often[number] for number in range(len(mixture))] == expected.tolist()


@settings(deadline=None)
@given(sizes, st.data(), st.integers(1, 40))
def test_every_record_of_a_source_comes_before_any_comes_again(counts, data, epochs):
    weights = data.draw(st.lists(st.floats(0.05, 3), min_size=len(counts), max_size=len(counts)))
    mixture = mixed(counts, weights)
    numbers, visits = records_of(mixture, np.arange(epochs * epoch_len(mixture)), seed=0)
    often = Counter(numbers.tolist())
    first = 0
    for count in counts:
        each = [often[number] for number in range(first, first + count)]
        assert max(each) - min(each) <= 1
        first += count
    # The visits to a record are numbered from 0.
    pairs = Counter(zip(numbers.tolist(), visits.tolist(), strict=True))
    assert set(pairs.values()) == {1}
    assert all(visit < often[number] for number, visit in pairs)


def test_half_a_weight_takes_one_half_after_the_other():
    mixture = mixed([100, 10], [0.5, 1])
    length = epoch_len(mixture)
    assert length == 60
    epochs = [
        {n for n in records_of(mixture, k * length + np.arange(length), 0)[0].tolist() if n < 100}
        for k in range(4)
    ]
    assert [len(each) for each in epochs] == [50] * 4
    assert not epochs[0] & epochs[1] and epochs[0] | epochs[1] == set(range(100))
    assert epochs[0] != epochs[2]  # the second pass has another order


def test_sources_are_shuffled_among_each_other():
    mixture = mixed([500, 500], [1, 1])
    numbers, _ = records_of(mixture, np.arange(1000), seed=0)
    assert 200 < (numbers[:500] < 500).sum() < 300
    assert (records_of(mixture, np.arange(1000), seed=1)[0] != numbers).any()


def test_batches_do_not_depend_on_processes_or_on_where_a_run_goes_on():
    mixture = mixed([7, 5], [1, 2.5], ["", "label"])
    for source in (mixture, replace_corrupt(mixture)):
        batches = take(train(source, captions="sample"), 5)
        assert digest(take(train(source, captions="sample", start_step=3), 2)) == digest(
            batches[3:]
        )
        parts = [
            next(train(source, captions="sample", process_index=k, process_count=2))
            for k in range(2)
        ]
        rows = [caption for part in parts for row in range(4) for caption in captions_in(part, row)]
        assert rows == [caption for row in range(8) for caption in captions_in(batches[0], row)]


def test_records_keep_their_prompt_or_get_that_of_their_source():
    own = Numbered("b", 2, prefix="question en")
    mixture = Mixture((Numbered("a", 3), own, Numbered("c", 1)), (1, 1, 1), ("label", "other", ""))
    records = mixture.read([5, 0, 3, 0])
    assert [record.prefix for record in records] == [None, "label", "question en", "label"]
    assert [record.captions[0] for record in records] == ["c 0", "a 0", "b 0", "a 0"]
    assert [record.image_id for record in records] == ["2/0.png", "0/0.png", "1/0.png", "0/0.png"]
    assert mixture.where(4) == "b, row 1"
    assert [record.captions for record in mixture.texts([3])] == [("b 0",)]


def test_a_change_of_any_part_changes_the_fingerprint():
    marks = {
        mixed([3, 4], [1, 1]).fingerprint(),
        mixed([3, 5], [1, 1]).fingerprint(),
        mixed([3, 4], [1, 2]).fingerprint(),
        mixed([3, 4], [1, 1], ["", "label"]).fingerprint(),
    }
    assert len(marks) == 4
    assert mixed([3, 4], [1, 1]).fingerprint() in marks


@pytest.mark.parametrize("weights", [(0.0, 1), (-1, 1), (float("inf"), 1), (1,)])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        mixed([3, 4], weights)


@pytest.fixture
def run(tmp_path):
    """A run, and two tables of six images each."""
    (tmp_path / "run").mkdir()
    made = write_run(tmp_path / "run")
    for name in "ab":
        rows = [
            {"image": f"{k}.png", "caption": f"{name} {k}", "split": "train" if k < 4 else "val"}
            for k in range(6)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made, tmp_path


def setup(run, **data):
    made, folder = run
    images = str(folder / "run" / "Images")
    parts = [
        {"train": str(folder / "a.jsonl"), "images": images},
        {"train": str(folder / "b.jsonl"), "images": images, "weight": 2.0, "prompt": "label"},
    ]
    data = {"kind": "auto", "train": "train", "validation": "validation", "mixture": parts} | data
    return setup_of(made, data=data)


def test_a_config_mixes_the_splits_of_its_parts(run):
    found = setup(run, test=str(run[1] / "a.jsonl#val"), images=str(run[1] / "run" / "Images"))
    assert {name: len(source) for name, source in found.data.items()} == {
        **{"train": 8, "validation": 4, "test": 2}
    }
    assert epoch_len(found.data["train"]) == 4 + 2 * 4
    prefixes = {record.prefix for record in found.data["train"].read(range(8))}
    assert prefixes == {None, "label"}
    batch = next(
        train_batches_of(
            found.config, found.data["train"], found.tokenizer, image_size=32, start_step=0
        )
    )
    assert batch["image"].shape == (32, 32, 32, 3)


def test_a_part_that_does_not_exist_is_named(run):
    with pytest.raises(FileNotFoundError, match="data.mixture: photos does not exist"):
        _ = setup(run, mixture=[{"train": "photos"}]).data


@pytest.mark.parametrize("changes", [{"kind": "jsonl"}, {"train": "photos"}])
def test_a_mixture_takes_no_other_data(run, changes):
    with pytest.raises(ValueError, match="mixture: leave out kind and train"):
        setup(run, **changes)


def test_a_part_without_images_is_named(run):
    (run[1] / "none.txt").write_text("")
    images = str(run[1] / "run" / "Images")
    folder = run[1]
    (folder / "whole.jsonl").write_text('{"image": "1.png", "caption": "a"}\n')
    part = {"train": f"{folder / 'whole.jsonl'}#none.txt", "images": images}
    with pytest.raises(ValueError, match="none.txt has no images to train on"):
        _ = setup(run, mixture=[part]).data
