"""Which run a folder holds: what differs is told, what is damaged is passed over."""

import pytest
from finetune_cases import leave_record

from paligemma_lib.train.compatibility import check_run, record_of

RUN = {"config": {"seed": 3, "stages": (1, 2)}, "params": "5f0c"}


def test_without_checkpoints_there_is_nothing_to_compare(tmp_path):
    check_run(tmp_path / "none", RUN)
    check_run(tmp_path, RUN)
    assert list(tmp_path.iterdir()) == []


def test_what_differs_is_told(tmp_path):
    leave_record(tmp_path, 7, {"config": {"seed": 1}, "params": "5f0c"})
    leave_record(tmp_path, 12, RUN)  # the newest counts, by number
    check_run(tmp_path, RUN)
    other = {"config": {"seed": 4, "stages": [1, 2], "new": 5}, "params": "aa"}
    with pytest.raises(ValueError, match="holds a run with another configuration") as caught:
        check_run(tmp_path, other)
    assert str(caught.value).splitlines()[1:-1] == [
        "  config.new: was None, is 5",
        "  config.seed: was 3, is 4",
        "  params: was '5f0c', is 'aa'",
    ]
    check_run(tmp_path, other, allow_changed=["config.seed", "config.new", "params"])


def test_an_older_record_is_given_what_it_lacks(tmp_path):
    leave_record(tmp_path, 7, RUN)
    newer = {**RUN, "new": 5}

    def completed(record):
        return {"new": 5, **record}

    check_run(tmp_path, newer, completed=completed)
    with pytest.raises(ValueError, match=r"at step 7:\n  new: was 5, is 6\n"):
        check_run(tmp_path, {**RUN, "new": 6}, completed=completed)
    with pytest.raises(ValueError, match=r"  new: was None, is 5\n"):
        check_run(tmp_path, newer)


def test_a_damaged_record_is_passed_over(tmp_path):
    leave_record(tmp_path, 7, {"config": {"seed": 1}})
    path = leave_record(tmp_path, 12, RUN, validation_loss=0.5)
    assert record_of(tmp_path, 12)["validation_loss"] == 0.5
    path.write_text(path.read_text().replace("3", "4", 1))
    with pytest.raises(ValueError, match="metadata has changed since it was written"):
        record_of(tmp_path, 12)
    with pytest.raises(ValueError, match=r"at step 7:\n  config.seed: was 1, is 3"):
        check_run(tmp_path, RUN)
    (tmp_path / "12.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "13").mkdir()
    with pytest.raises(ValueError, match=r"at step 7:"):
        check_run(tmp_path, RUN)
