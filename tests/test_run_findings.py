"""All checks one after the other: what is told of each, and that a cause is told once."""

import time

import pytest
from run_cases import setup_of, sources_of, write_run

from paligemma_lib.run import ChecksFailed, checks, findings, require, run_checks


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def setup(tiny, tmp_path):
    def setup(**changes):
        return setup_of(
            tiny, **{"workdir": str(tmp_path / "run"), "given": sources_of(tiny)} | changes
        )

    return setup


def test_all_is_well(setup, tmp_path):
    found = list(run_checks(setup(), timeout=60))
    assert [each.name for each in found] == list(checks.CHECKS)
    assert all(each.passed and not each.first for each in found), found
    said = {each.name: each.text for each in found}
    assert "jax" in said["machine"] and "1 x cpu" in said["machine"]
    assert said["data"] == "train 12, validation 12, test 12 images"
    assert said["texts"] == "captions of 24 images need 22 of 32 tokens"
    assert said["checkpoint"].endswith("parameters in float32")
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    require(setup())


def test_one_cause_is_told_once_and_the_other_checks_are_made(setup):
    damaged = setup(model={"checkpoint": "nowhere.npz", "tokenizer": ""})
    failed = {each.name: each for each in run_checks(damaged, 60) if not each.passed}
    first = failed.pop("checkpoint")
    assert first.text.startswith("nowhere.npz does not exist") and not first.first
    assert {each.text for each in failed.values()} == {"same error as checkpoint"}
    assert {each.first for each in failed.values()} == {"checkpoint"}
    assert set(failed) == {"trainable", "tokenizer", "memory", "texts", "workdir"}
    message = "^the run cannot start, since a check fails:\n  checkpoint: nowhere.npz does not"
    with pytest.raises(ChecksFailed, match=message) as caught:
        require(damaged)
    assert str(caught.value).count("nowhere.npz") == 1


def test_a_run_is_refused_for_all_that_is_wrong(setup, tmp_path):
    (tmp_path / "file").touch()
    wrong = setup(text_len=8, given={}, workdir=str(tmp_path / "file" / "run"), stages=[
        {"trainable": "attn"}
    ])  # fmt: skip
    with pytest.raises(ChecksFailed) as caught:
        require(wrong)
    head, *lines = str(caught.value).splitlines()
    assert head == "the run cannot start, since 3 checks fail:"
    assert [line.split(":")[0].strip() for line in lines] == ["trainable", "data", "workdir"]
    assert isinstance(caught.value, ValueError)  # for those who caught that before


def test_what_takes_too_long_has_failed(setup, monkeypatch):
    def stall(_):
        time.sleep(30)

    def time_out(_):
        raise TimeoutError("the server said nothing")

    made = {"kaggle": stall, "tokenizer": time_out, "batch": checks.batch}
    monkeypatch.setattr(findings, "CHECKS", made)
    first, second, third = run_checks(setup(), timeout=0.1)
    assert not first.passed and first.text == "no answer within 0.1 s: check the network"
    assert not second.passed and second.text == "the server said nothing"
    assert third.passed


def test_a_run_itself_waits_for_networks_and_tells_of_their_own_time_outs(setup, monkeypatch):
    def time_out(_):
        raise TimeoutError("the server said nothing")

    monkeypatch.setattr(findings, "CHECKS", {"kaggle": time_out})
    with pytest.raises(ChecksFailed, match="kaggle: the server said nothing"):
        require(setup())


def test_whatever_a_library_raises_is_a_finding(setup, monkeypatch):
    def fail(_):
        raise KeyError("lost")

    monkeypatch.setattr(findings, "CHECKS", {"machine": fail, "batch": checks.batch})
    first, second = run_checks(setup())
    assert (first.passed, first.text) == (False, "KeyError: 'lost'")
    assert second.passed
