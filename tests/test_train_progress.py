"""What is recorded, what is shown, and what a restart keeps."""

import json

import jax.numpy as jnp
import pytest
from gcs_cases import Storage

from paligemma_lib.runtime.atomic import path_of
from paligemma_lib.train import progress
from paligemma_lib.train.progress import Progress

METRICS = {"loss": jnp.float32(2.5), "learning_rate": jnp.float32(0.1)}


class Clock:
    """Time that passes when told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def lines(folder):
    return [json.loads(line) for line in (folder / progress.FILE).read_text().splitlines()]


def test_speed_and_waiting_of_each_step(tmp_path, clock):
    with Progress(tmp_path, total_steps=2, steps_per_epoch=1) as run:
        with run.waiting():
            clock.now += 1
        clock.now += 3
        run.record(0, METRICS, captions=40)
        with run.paused():
            clock.now += 1000
        clock.now += 2
        run.record(1, METRICS, captions=40)
    first, second = lines(tmp_path)
    assert first == {
        "step": 0,
        "loss": 2.5,
        "learning_rate": pytest.approx(0.1),
        "captions_per_second": 10,
        "waiting": 0.25,
        "seconds": 4,
    }
    assert (second["captions_per_second"], second["waiting"]) == (20, 0)


def test_lines_for_people(tmp_path, clock, capsys):
    with Progress(tmp_path, total_steps=40, steps_per_epoch=10) as run:
        for step in range(40):
            clock.now += 2
            run.record(step, METRICS, captions=60)
        run.note(40, {"validation_loss": 1.25})
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "step 1 of 40: epoch 0.10, loss 2.500, rate 0.1, 30 captions/s, waiting 0%, 78 s left"
    )
    assert len(said) == 7  # one in 15 seconds, the last, the note
    assert said[-1] == "step 40 of 40: validation_loss 1.25"
    assert lines(tmp_path)[-1] == {"step": 40, "validation_loss": 1.25}


def test_a_restart_does_later_steps_again(tmp_path, clock):
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1) as run:
        for step in range(5):
            clock.now += 1
            run.record(step, METRICS, captions=1)
    with (tmp_path / progress.FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # killed while writing
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1, first_step=3) as run:
        assert [record["step"] for record in run.history] == [0, 1, 2]
        clock.now += 1
        run.record(3, METRICS, captions=1)
    assert [record["step"] for record in lines(tmp_path)] == [0, 1, 2, 3]


def test_lines_that_are_damaged_are_left_out_and_the_file_is_kept(tmp_path, clock, caplog):
    rest = '"learning_rate": 0.1, "captions_per_second": 8.0, "waiting": 0.0, "seconds": 1.0}\n'
    first, second = (f'{{"step": {k}, "loss": null, {rest}' for k in range(2))
    text = f"{first}\xff\n[]\n{second}"
    (tmp_path / progress.FILE).write_text(text, "latin-1")
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1, first_step=2) as run:
        assert [record["step"] for record in run.history] == [0, 1]
    assert (tmp_path / "metrics.jsonl.damaged").read_text("latin-1") == text
    assert [record["step"] for record in lines(tmp_path)] == [0, 1]
    assert "metrics.jsonl.damaged: 2 of 4 lines are damaged, line 2: not an object" in caplog.text


def test_records_that_lack_numbers_or_come_again_do_not_stop_a_run(tmp_path, clock, caplog):
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1) as run:
        clock.now += 1
        run.record(0, METRICS, captions=8)
        run.note(1, {"validation_loss": 2.0})
    path = tmp_path / progress.FILE
    path.write_text(2 * path.read_text() + '{"step": 1, "seconds": 0.1}\n')
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1, first_step=2) as run:
        clock.now += 1
        run.record(2, METRICS, captions=8)
    assert [record["step"] for record in lines(tmp_path)] == [0, 1, 2]
    assert "3 of 5 lines are damaged, line 3: step 0 comes after step 0" in caplog.text


def test_what_is_not_finite_is_null(tmp_path, clock):
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1) as run:
        clock.now += 1
        run.record(0, {**METRICS, "loss": float("nan")}, captions=1)
        run.note(1, {"validation_loss": float("inf")})

    def refuse(name):
        raise AssertionError(name)

    text = (tmp_path / progress.FILE).read_text()
    found = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert [found[0]["loss"], found[1]["validation_loss"]] == [None, None]


def test_names_from_outside_are_printed_visibly(tmp_path, capsys):
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1) as run:
        run.show(1, "a\x1b[2J.jpg", lambda: None, "a dog\nstep 9 of 9: done")
    assert capsys.readouterr().err == ("step 1 of 9: a\\x1b[2J.jpg: a dog\\nstep 9 of 9: done\n")


def test_a_restart_keeps_what_was_noted_at_its_checkpoint(tmp_path, clock):
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1) as run:
        for step in range(4):
            clock.now += 1
            run.record(step, METRICS, captions=1)
            run.note(step + 1, {"validation_loss": float(step)})
    with Progress(tmp_path, total_steps=9, steps_per_epoch=1, first_step=2) as run:
        noted = [each["step"] for each in run.history if "validation_loss" in each]
        assert noted == [1, 2]
        assert [each["step"] for each in run.history if "loss" in each] == [0, 1]


def test_a_silent_one_writes_and_prints_nothing(tmp_path, clock, capsys):
    with Progress(tmp_path, total_steps=2, steps_per_epoch=1, silent=True) as run:
        clock.now += 1
        run.record(0, METRICS, captions=1)
        run.note(1, {"validation_loss": 1.0})
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_trackers_get_all_values_and_are_closed(tmp_path, clock):
    seen = []

    class Seeing:
        def scalars(self, values, step):
            seen.append((values, step))

        def caption(self, image_id, image, caption, step):
            seen.append((image_id, image, caption, step))

        def close(self):
            seen.append("closed")

    trackers = [Seeing(), Seeing()]
    with Progress(tmp_path, total_steps=2, steps_per_epoch=1, trackers=trackers) as run:
        clock.now += 1
        run.record(0, METRICS, captions=8)
        run.show(1, "a.jpg", lambda: "pixels", "a dog")
        run.note(1, {"validation_loss": 0.5})
    image, values, note = ("a.jpg", "pixels", "a dog", 1), seen[2], seen[4]
    assert seen == [image, image, values, values, note, note, "closed", "closed"]
    assert values[1] == 0 and values[0]["loss"] == 2.5 and values[0]["captions_per_second"] == 8
    assert note == ({"validation_loss": 0.5}, 1) and type(note[0]["validation_loss"]) is float


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with (
        Progress(tmp_path, total_steps=9, steps_per_epoch=9) as run,
        pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/metrics.jsonl'"),
    ):
        run._file = open("/dev/full", "a")  # noqa: SIM115, it closes it
        run.note(1, {"validation_loss": 1.25})


def test_the_latest_is_of_this_start(tmp_path, clock):
    """Else the processes of a restart, of which one alone reads the file, would disagree."""
    for first_step in (0, 1):
        with Progress(tmp_path, total_steps=2, steps_per_epoch=1, first_step=first_step) as run:
            assert run.latest("loss") == 0
            clock.now += 1
            run.record(first_step, METRICS, captions=1)
            run.note(first_step + 1, {"validation_loss": 1.5})
            assert (run.latest("loss"), run.latest("validation_loss")) == (2.5, 1.5)


def test_a_restart_that_dies_at_once_loses_no_record(tmp_path, monkeypatch):
    with Progress(tmp_path, total_steps=3, steps_per_epoch=3) as run:
        for step in range(2):
            run.record(step, {"loss": 1.0, "learning_rate": 0.1}, captions=4)
    before = (tmp_path / progress.FILE).read_bytes()

    def die(record):
        raise MemoryError

    monkeypatch.setattr("paligemma_lib.train.progress.dumps", die)
    with pytest.raises(MemoryError):
        Progress(tmp_path, total_steps=3, steps_per_epoch=3, first_step=2)
    assert (tmp_path / progress.FILE).read_bytes() == before


def test_where_nothing_can_be_appended_the_file_is_written_when_flushed(
    tmp_path, monkeypatch, clock
):
    with Storage(tmp_path) as storage:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)

        def steps():
            content = storage.objects["bucket/run/metrics.jsonl"].decode()
            return [json.loads(line)["step"] for line in content.splitlines()]

        folder = path_of("gs://bucket/run")
        with Progress(folder, total_steps=9, steps_per_epoch=1) as run:
            for step in range(3):
                run.record(step, METRICS, captions=1)
            assert steps() == []
            run.flush()
            assert steps() == [0, 1, 2]
            run.note(3, {"validation_loss": 1.0})
        assert steps() == [0, 1, 2, 3]
        with Progress(folder, total_steps=9, steps_per_epoch=1, first_step=2) as run:
            assert [record["step"] for record in run.history] == [0, 1]
            run.record(2, METRICS, captions=1)
        assert steps() == [0, 1, 2]
