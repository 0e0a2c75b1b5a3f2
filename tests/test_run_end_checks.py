"""What would fail at the end of a run is found before its start."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from finetune_cases import leave_record
from run_cases import changed, write_run

from paligemma_lib.run import Setup, end_checks


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@dataclasses.dataclass(frozen=True)
class Wordy:
    """Never ends."""

    rows = 1
    random = False

    def sample(self, logits, keys, written):
        return jnp.argmax(logits.at[:, 1].set(-jnp.inf), axis=-1)


class Broken(Wordy):
    def sample(self, logits, keys, written):
        return logits + np.ones(3)  # shapes that do not fit


@pytest.fixture
def workdir(config, tmp_path):
    def check(name, **changes):
        changes = {"workdir": str(tmp_path), **changes}
        return getattr(end_checks, name)(Setup(changed(config, **changes)))

    check.path = tmp_path
    return check


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.safetensors", "ends in .safetensors, expected a name that ends in .npz"),
        ("captioner.bin", "ends in .bin"),
        ("checkpoints", "the folder of the run's checkpoints"),
        ("models/mine.npz", "models is no folder; create it"),
        ("..", "names no file or folder"),
        ("mine.npz", "mine.npz is a folder; use another name"),
        ("photos", "photos exists, and holds other files than an export: dog.jpg"),
    ],
)
def test_an_export_that_could_not_be_written_is_refused(workdir, name, problem):
    (workdir.path / "mine.npz").mkdir()
    (workdir.path / "photos").mkdir()
    (workdir.path / "photos" / "dog.jpg").touch()
    with pytest.raises((ValueError, OSError), match=problem):
        workdir("export", export=name)


def test_an_export_is_told_and_may_replace_an_earlier_one(workdir):
    assert workdir("export", export="a.npz") == f"{workdir.path / 'a.npz'}, a file in float16"
    (workdir.path / "mine").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.model"):
        (workdir.path / "mine" / name).touch()
    assert workdir("export", export="mine").endswith("mine, a folder in float16")
    (workdir.path / "mine" / "notes").mkdir()
    with pytest.raises(FileExistsError):
        workdir("export", export="mine")


def test_what_this_run_has_not_made_is_not_replaced(workdir, config, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("models")
    place = str(elsewhere / "mine.npz")
    assert workdir("export", export=place).startswith(place)
    (elsewhere / "tokenizer.model").write_bytes(b"of another model")
    with pytest.raises(FileExistsError, match="the tokenizer of another model"):
        workdir("export", export=place)
    (elsewhere / "tokenizer.model").unlink()
    (elsewhere / "mine.npz").touch()
    with pytest.raises(FileExistsError, match="is not of this run"):
        workdir("export", export=place)
    leave_record(workdir.path / "checkpoints", 3, {"config": {"export": place}})
    assert workdir("export", export=place).startswith(place)  # it has been exported before
    with pytest.raises(FileExistsError, match="the checkpoint that the run starts from"):
        workdir("export", export=config.model.checkpoint)


def test_a_sampler_of_ones_own_is_tried_with_the_shapes_of_the_model(workdir):
    assert workdir("decoding") == "greedy, up to 48 tokens"
    assert workdir("decoding", sampler=f"{__name__}:Wordy").endswith(":Wordy, up to 48 tokens")
    with pytest.raises(ValueError, match=r":Broken cannot be used to decode: \w+Error: .*shapes"):
        workdir("decoding", sampler=f"{__name__}:Broken")


def test_trackers_are_imported(workdir):
    assert workdir("trackers") == "tensorboard"
    assert workdir("trackers", trackers=()) == "none"
    with pytest.raises(ValueError, match="no_such_module"):
        workdir("trackers", trackers=("no_such_module:Tracker",))
    with pytest.raises(ValueError, match="not a class or function"):
        workdir("trackers", trackers=("math:pi",))
