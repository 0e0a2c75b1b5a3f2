"""metrics.jsonl: whatever is in it, what can be read is read, and the rest is told."""

import json
import math

from fuzzing import EXAMPLES, changed_json, damaged, fuzz

from paligemma_lib.train.metrics_file import read_metrics

RECORDS = [{"step": 0, "loss": 2.5, "seconds": 0.1}, {"step": 1, "validation_loss": 1.5}]
VALID = b"".join(json.dumps(each).encode() + b"\n" for each in RECORDS)


def test_null_is_nan_and_a_line_without_an_end_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(VALID + b'{"step": 2, "loss": null}\n{"step": 3, "lo')
    records, problem = read_metrics(path)
    assert records[:2] == RECORDS and problem == ""
    assert records[2]["step"] == 2 and math.isnan(records[2]["loss"]) and len(records) == 3


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

    fuzz(examples // 2, check, damaged(VALID))
    fuzz(examples // 2, check, changed_json(RECORDS[0]))
