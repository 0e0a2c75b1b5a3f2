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
from paligemma_lib.run import ConfigError, RunConfig
from paligemma_lib.run.assembly import sampler_of
from paligemma_lib.run.dotted import load_dotted

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
    assert sorted(FILES) == ["csv_tracker.py", "no_repeats.py", "sql_images.py"]
    for name, code in FILES.items():
        lines = [line for line in code.splitlines() if line.strip()]
        classes = "\n".join(lines).partition("class ")[2]
        assert len(classes.splitlines()) <= 25, name


def test_trigrams_do_not_repeat(examples):
    sampler = sampler_of("no_repeats:NoRepeatedTrigrams")
    written = np.array([[5, 6, 7, 5, 6, 0, 0], [5, 6, 7, 6, 5, 0, 0], [6, 6, 6, 6, 6, 0, 0]])
    logits = np.tile(np.arange(9.0, dtype=np.float32), (3, 1))
    logits[:, 7], logits[2, 6] = 10, 11  # what each would say next, if it were free to

    def next_token(length):
        so_far = pg.decode.Written(jnp.asarray(written, jnp.int32), jnp.int32(length))
        return jax.jit(sampler.sample)(logits, None, so_far).tolist()

    assert next_token(5) == [8, 7, 7]  # 5 6 7 and 6 6 6 are there already, 6 5 7 is not
    assert next_token(2) == [7, 7, 6]
    assert next_token(0) == [7, 7, 6]


def test_captions_without_repeated_trigrams(examples):
    params, tokenizer = cases.random_params(), pg.testing.tiny_tokenizer()
    # Of a table whose rows differ little, a greedy caption says one thing for ever.
    side = cases.CONFIG.vision.image_size
    images = np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    sampler = sampler_of("no_repeats:NoRepeatedTrigrams")
    found = pg.decode.generate(
        cases.CONFIG, params, images, tokenizer, sampler=sampler, max_new_tokens=40
    )
    for caption in found:
        trigrams = list(zip(*(caption.tokens[k:] for k in range(3)), strict=False))
        assert len(trigrams) > 20 and len(set(trigrams)) == len(trigrams)


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
    config.sampler = "no_repeats:NoRepeatedTrigrams"
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


@pytest.mark.parametrize(
    "field, value, told",
    [
        ("sampler", "no_repeats", "sampler='no_repeats': expected greedy, beam, or package.module"),
        ("sampler", "a b:c", "expected greedy, beam, or package.module:name"),
        ("trackers", ("wandb",), "trackers='wandb': expected tensorboard or package.module:name"),
    ],
)
def test_what_is_no_name_is_told(field, value, told):
    with pytest.raises(ConfigError, match=told):
        RunConfig(**{field: value})


@pytest.mark.parametrize(
    "path, told",
    [
        ("nowhere:Thing", "sampler=nowhere:Thing: ModuleNotFoundError: No module named 'nowhere'"),
        ("no_repeats:Thing", "sampler=no_repeats:Thing: AttributeError: .* no attribute 'Thing'"),
    ],
)
def test_what_is_not_there_is_told(examples, path, told):
    with pytest.raises(ConfigError, match=told):
        load_dotted(path, "sampler")


def test_the_command_takes_a_sampler_of_ones_own(examples, capsys):
    cases.write_images(examples, ["a.png"])
    options = cases.write_captioner(examples)
    assert main(["caption", "a.png", "--sampler=no_repeats:NoRepeatedTrigrams", *options]) == 0
    assert "a.png" in capsys.readouterr().out
    assert main(["caption", "a.png", "--sampler=best", *options]) == 2
    assert "expected greedy, sample, beam, or package.module:name" in capsys.readouterr().err
