"""metrics.jsonl: whatever is in it, what can be read is read, and the rest is told."""

import json
import math

import pytest
from fuzzing import EXAMPLES, changed_json, damaged, fuzz

from paligemma_lib.report import Line
from paligemma_lib.train.metrics_file import read_metrics

STEP = {"loss": 2.5, "learning_rate": 0.1, "captions_per_second": 9.5, "waiting": 0.5}
RECORDS = [{"step": 0, **STEP, "seconds": 0.1}, {"step": 1, "validation_loss": 1.5}]
VALID = b"".join(json.dumps(each).encode() + b"\n" for each in RECORDS)


def test_null_is_nan_and_a_line_without_an_end_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(VALID + b'{"step": 2, "loss": null}\n{"step": 3, "lo')
    records, problem = read_metrics(path)
    assert records[:2] == RECORDS and problem == ""
    assert records[2]["step"] == 2 and math.isnan(records[2]["loss"]) and len(records) == 3


@pytest.mark.parametrize("name", STEP)
def test_a_step_without_one_of_its_numbers_is_damaged(name, tmp_path):
    path = tmp_path / "metrics.jsonl"
    lacking = {key: value for key, value in RECORDS[0].items() if key != name}
    path.write_bytes(VALID + json.dumps({**lacking, "step": 1}).encode() + b"\n")
    told = f"1 of 3 lines are damaged, line 3: it has seconds, but no {name}"
    assert read_metrics(path) == (RECORDS, told)


def test_steps_rise_for_each_name(tmp_path):
    path = tmp_path / "metrics.jsonl"
    again = [{"step": 0, **STEP, "seconds": 9.0}, {"step": 1, "validation_loss": 7.0}]
    later = [{"step": 1, **STEP, "seconds": 0.1}, {"step": 2, "validation_loss": 1.0}]
    lines = [*RECORDS, *again, *later, {"step": -1, "other": 1.0}, {"step": 10**400, "other": 1.0}]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    records, problem = read_metrics(path)
    assert records == [*RECORDS, *later]
    assert problem == "4 of 8 lines are damaged, line 3: step 0 comes after step 0"


@EXAMPLES
def test_any_content_is_read_or_told(examples, tmp_path):
    path = tmp_path / "metrics.jsonl"

    def check(content):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode("utf-8", "surrogatepass") + b"\n"
        path.write_bytes(content)
        records, problem = read_metrics(path)
        lines = content.count(b"\n")
        assert (len(records) < lines) == bool(problem) and len(problem) < 1000
        assert all(type(record["step"]) is int for record in records)
        for name in {name for record in records for name in record} - {"step"}:
            found = [record for record in records if name in record]
            Line(name, [each["step"] for each in found], [each[name] for each in found])

    fuzz(examples // 2, check, damaged(VALID))
    fuzz(examples // 2, check, changed_json(RECORDS[0]))
