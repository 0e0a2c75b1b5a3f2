"""Runs that train for a reward: it rises, what a run needs stays, wrong options are told."""

import json
import random

import numpy as np
import pytest
import run_cases

from paligemma_lib.data.sources import Record
from paligemma_lib.run import Setup, end_checks, finetune
from paligemma_lib.run.options import ConfigError
from paligemma_lib.run.rewards import cider, length, scene_truth
from paligemma_lib.sample_data import compose, scenes
from paligemma_lib.sample_data.truth import truth

SHORT = "test_run_self_critical:short"


def short(captions, references, image_ids):
    """A reward of one's own: as few letters as possible."""
    for told, image_id in zip(references, image_ids, strict=True):
        assert told in ((f"a dog runs over {image_id}",), ("a dog runs .",))
    return [-len(caption) for caption in captions]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewarded")
    return run_cases.changed(
        run_cases.write_run(folder),
        workdir=str(folder / "work"),
        reward={"name": SHORT, "samples": 8, "kl": 0.01},
        stages=[{"trainable": ["all"]}],
        batch_size=4,
        epochs=8.0,
        max_new_tokens=6,
        validate_every=0.0,
        save_every=2.0,
        evaluate_before=False,
        trackers=(),
        export_dtype="float32",
        optimizer={"learning_rate": 0.02},
    )


def history(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "work"
    assert finetune(run_cases.changed(config, workdir=str(folder))) == 0
    return folder


def test_the_reward_rises(whole):
    steps = history(whole)
    reward = [each["reward"] for each in steps]
    assert len(reward) == 24
    assert np.mean(reward[-4:]) > np.mean(reward[:4]) + 2
    assert steps[0]["divergence"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["divergence"] > 0


@pytest.mark.slow
def test_a_run_that_goes_on_is_one_that_never_stopped(whole, config, tmp_path, monkeypatch):
    import paligemma_lib.run.train as train

    class Stopped(Exception):
        pass

    def until(self, state, batch, batches, step, real=train.SelfCritical.batch):
        if step == 14:
            raise Stopped
        return real(self, state, batch, batches, step)

    half = run_cases.changed(config, workdir=str(tmp_path / "work"))
    with monkeypatch.context() as patch:
        patch.setattr(train.SelfCritical, "batch", until)
        with pytest.raises(Stopped):
            finetune(half)
    assert finetune(half) == 0
    with (
        np.load(whole / config.export_name) as once,
        np.load(tmp_path / "work" / config.export_name) as twice,
    ):
        for name in once:
            np.testing.assert_array_equal(twice[name], once[name], err_msg=name)
    told = [{k: row[k] for k in ("loss", "reward", "divergence")} for row in history(whole)]
    assert told == [{k: row[k] for k in told[0]} for row in history(tmp_path / "work")]


def test_steps_that_are_not_finite_end_the_run_and_are_told(config, tmp_path, monkeypatch):
    """Also where weights are negative: the losses of the batch are asked for."""
    import paligemma_lib.run.train as train

    def spoiled(self, state, batch, batches, step, real=train.SelfCritical.batch):
        made, told = real(self, state, batch, batches, step)
        assert made["loss_weight"].min() < 0
        return {**made, "image": np.full(made["image"].shape, np.nan, np.float32)}, told

    monkeypatch.setattr(train.SelfCritical, "batch", spoiled)
    run = run_cases.changed(config, workdir=str(tmp_path / "work"), max_skipped=1)
    with pytest.raises(
        ValueError, match=r"Images of this batch whose loss is not finite: \d+\.png"
    ):
        finetune(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing has no effect on sampled captions"),
        ({"captions": "sample"}, "captions has no effect on sampled captions"),
        ({"stages": [{}, {"from_step": 5}]}, "reward.kl: expected one stage"),
        ({"reward": {"name": "bleu"}}, "expected , cider, truth, length, or"),
        ({"reward": {"samples": 1}}, "reward.samples=1"),
    ],
)
def test_options_without_sense(config, changes, message):
    with pytest.raises(ConfigError) as error:
        run_cases.changed(config, **changes)
    assert message in str(error.value)


def test_the_reward_is_tried_before_a_run(config, monkeypatch):
    def check(**reward):
        return end_checks.reward(Setup(run_cases.changed(config, reward=reward)))

    assert check(name="cider") == "cider, of 8 captions of each image"
    assert check(name="", samples=5, kl=0.0) == "none: people's captions"
    monkeypatch.setitem(globals(), "short", lambda *given: [1, 2])
    assert check() == f"{SHORT}, of 8 captions of each image"
    for wrong, message in (
        ({"name": ""}, "have no effect"),
        ({"name": "truth"}, "expected drawn scenes"),
        ({"name": "test_run_self_critical:nothing"}, "cannot be used: ConfigError"),
    ):
        with pytest.raises(ValueError, match=message):
            check(**wrong)
    for own in (lambda *given: [1], lambda *given: [1, np.nan]):
        monkeypatch.setitem(globals(), "short", own)
        with pytest.raises(ValueError, match="expected two finite numbers"):
            check()


def test_memory_and_plans_see_the_captions_that_are_sampled(config):
    assert config.trained_text_len(32) == len("caption en") + 2 + 8 * 6
    supervised = run_cases.changed(config, reward={"name": "", "samples": 5, "kl": 0.0})
    assert (supervised.trained_text_len(40), supervised.trained_text_len()) == (40, 32)


def test_a_reward_of_another_number_is_told(config, tmp_path, monkeypatch):
    def two(captions, *_):
        return [1.0, 2.0]

    monkeypatch.setitem(globals(), "short", two)
    with pytest.raises(ValueError, match="numbers of shape \\(2,\\) for 32 captions"):
        finetune(run_cases.changed(config, workdir=str(tmp_path / "work")))


@pytest.mark.parametrize("index", range(12))
def test_the_truth_of_scenes(index):
    scene = compose(5, index)
    told = scenes.captions(scene, random.Random(index))
    best = max(told, key=lambda text: len(truth(scene, text).things()))
    winter = random.Random(0).choice(scenes.AROUND[scene.background])
    captions = [best, f"{best} {winter} {winter}", f"{best} gibberish", "", f"{winter} " * 20]
    name = f"scene_{index:05d}.jpg"
    right, again, strange, nothing, hacked = scene_truth(5, captions, [(best,)] * 5, [name] * 5)
    assert right == 1 - len(truth(scene, best).missing) / len(scene.groups) > 0
    assert again < right and strange < right and nothing == hacked == 0
    (other,) = scene_truth(5, ["a red dog and a blue car"], [(best,)], [name])
    assert other < right
    with pytest.raises(ValueError, match="dog.jpg is not of a drawn scene"):
        scene_truth(5, ["a"], [()], ["dog.jpg"])


def test_length_and_cider():
    references = [("a dog runs", "a small dog runs fast")]
    assert length(["a dog runs now", "dog"], references * 2, ["1"] * 2) == [0, -3]

    class Told:
        def __init__(self, *captions):
            self.captions = captions

        def __len__(self):
            return 3

        def read(self, numbers):
            return [
                Record(b"", ((*references, ("a cat sits",), ("a bird flies",))[n]), str(n))
                for n in numbers
            ]

    good, bad = cider(Told())(["a dog runs", "a cat sits"], references * 2, ["0", "0"])
    assert good > bad and good > 1
