"""What docs/extending.md shows works: alone, and named by a dotted path in a run."""

import csv
import re
import sqlite3
import sys

import captioning_cases as cases
import finetune_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from readme_cases import ROOT

import paligemma_lib as pg
from paligemma_lib.cli.main import main
from paligemma_lib.run import ConfigError, RunConfig, Setup, end_checks
from paligemma_lib.run.assembly import sampler_of
from paligemma_lib.run.dotted import load_dotted
from paligemma_lib.run.training_config import RewardConfig

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
FILES = dict(re.findall(r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The examples as files in the working directory."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
        sys.modules.pop(name.removesuffix(".py"), None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_each_example_is_short():
    assert sorted(FILES) == [
        "csv_tracker.py", "sql_images.py", "typical.py", "words_of_people.py",
    ]  # fmt: skip
    for name, code in FILES.items():
        lines = [line for line in code.splitlines() if line.strip()]
        classes = "\n".join(lines).partition("class ")[2]
        assert len(classes.splitlines()) <= 25, name


def test_typical_tokens_are_drawn_by_their_share(examples):
    load_dotted("typical:Typical", "sampler")
    typical = sys.modules["typical"].Typical
    # Their entropy is 1.11 nats; 0.3 is nearest to it (1.20), then 0.5 (0.69), then 0.1 (2.30).
    logits = jnp.log(jnp.tile(jnp.array([0.5, 0.3, 0.1, 0.1, 0.0]), (4000, 1)))
    keys = jax.random.split(jax.random.key(0), len(logits))

    def shares(mass):
        drawn = jax.jit(typical(mass).sample)(logits, keys, None)
        return np.bincount(drawn, minlength=5) / len(logits)

    np.testing.assert_allclose(shares(0.2), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(shares(0.7), [5 / 8, 3 / 8, 0, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(1.0), [0.5, 0.3, 0.1, 0.1, 0], atol=0.03)


def test_processors_take_a_sampler_of_ones_own(examples):
    params, tokenizer = cases.random_params(), pg.testing.tiny_tokenizer()
    side = cases.CONFIG.vision.image_size
    images = np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    sampler = pg.decode.Processed(sampler_of("typical:Typical"), (pg.decode.NoRepeatNgram(3),))
    found = pg.decode.generate(
        cases.CONFIG, params, images, tokenizer, sampler=sampler, max_new_tokens=40,
        key=jax.random.key(0),
    )  # fmt: skip
    for caption in found:
        trigrams = list(zip(*(caption.tokens[k:] for k in range(3)), strict=False))
        assert len(set(trigrams)) == len(trigrams)


def test_a_run_with_all_three(examples):
    config = finetune_cases.tiny_run(examples)
    with sqlite3.connect("photos.db") as database:
        for split, count in (("train", 12), ("other", 4)):
            database.execute(f"CREATE TABLE {split} (path TEXT, caption TEXT)")
            rows = [(str(examples / f"{n}.png"), f"a dog and {n} cats") for n in range(count)]
            database.executemany(f"INSERT INTO {split} VALUES (?, ?)", rows)
    config.data.kind = "sql_images:SqlImages"
    config.data.train = "photos.db:train"
    config.data.validation = config.data.test = "photos.db:other"
    config.sampler = "typical:Typical"
    config.trackers = ("csv_tracker:CsvTracker",)
    config.evaluate_before = False
    config.epochs, config.stages = 1.0, config.stages[:1]
    config.workdir = str(examples / "run")
    assert finetune_cases.finetune(config) == 0
    rows = list(csv.reader((examples / "run" / "scalars.csv").read_text().splitlines()))
    losses = {int(step): float(value) for step, name, value in rows if name == "loss"}
    assert losses == finetune_cases.losses("run") and set(losses) == {0, 1, 2}
    captions = csv.reader((examples / "run" / "captions.csv").read_text().splitlines())
    assert {row[1] for row in captions} <= {str(examples / f"{n}.png") for n in range(4)}
    assert not list((examples / "run").glob("events.out.*"))

    # Other records under the same name are another run.
    with sqlite3.connect("photos.db") as database:
        database.execute("UPDATE train SET caption = 'a dog and no cats' WHERE rowid = 3")
    with pytest.raises(ValueError, match="data.train: was '[0-9a-f]+', is '[0-9a-f]+'"):
        finetune_cases.finetune(config)


def test_a_reward_is_named_in_a_run(examples):
    reward = load_dotted("words_of_people:words_of_people", "reward.name")
    told = [("A dog runs .", "A brown dog .")] * 3
    assert reward(["a dog", "a dog a dog", "the cat"], told, ["1"] * 3) == [1, 0.5, 0]
    config = RunConfig(reward=RewardConfig(name="words_of_people:words_of_people"))
    assert end_checks.reward(Setup(config)).startswith("words_of_people:words_of_people, of 5")


@pytest.mark.parametrize(
    "field, value, told",
    [
        ("sampler", "typical", "sampler='typical': expected greedy, beam, or package.module"),
        ("sampler", "a b:c", "expected greedy, beam, or package.module:name"),
        ("trackers", ("aim",), "trackers='aim': expected tensorboard, wandb, mlflow, trackio, or"),
    ],
)
def test_what_is_no_name_is_told(field, value, told):
    with pytest.raises(ConfigError, match=told):
        RunConfig(**{field: value})


@pytest.mark.parametrize(
    "path, told",
    [
        ("nowhere:Thing", "sampler=nowhere:Thing: ModuleNotFoundError: No module named 'nowhere'"),
        ("typical:Thing", "sampler=typical:Thing: AttributeError: .* no attribute 'Thing'"),
    ],
)
def test_what_is_not_there_is_told(examples, path, told):
    with pytest.raises(ConfigError, match=told):
        load_dotted(path, "sampler")


def test_the_command_takes_a_sampler_of_ones_own(examples, capsys):
    cases.write_images(examples, ["a.png"])
    options = cases.write_captioner(examples)
    assert main(["caption", "a.png", "--sampler=typical:Typical", *options]) == 0
    assert "a.png" in capsys.readouterr().out
    assert main(["caption", "a.png", "--sampler=best", *options]) == 2
    assert "expected greedy, sample, beam, or package.module:name" in capsys.readouterr().err
