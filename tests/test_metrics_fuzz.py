"""Whatever a file of captions holds, it is read, or refused with one clear error."""

import io
import json
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from fuzzing import EXAMPLES, changed_json, damaged, fuzz

from paligemma_lib.metrics import read_captions, read_predictions

REFERENCES = {"a.jpg": ["A dog runs .", 'A "dog", running'], "b.jpg": ["Ein Hündchen ."]}
ROWS = [(image, caption) for image, group in REFERENCES.items() for caption in group]
RESULTS = [{"image_id": image, "caption": caption} for image, caption in ROWS]
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": RESULTS}
FILES = {
    ".csv": 'image,caption\na.jpg,A dog runs .\na.jpg,"A ""dog"", running"\nb.jpg,\'=1\n',
    ".txt": "image,caption\r\na.jpg,A dog runs .\r\nb.jpg,Ein Hündchen .\r\n",
    ".jsonl": "".join(json.dumps({"image": i, "caption": c}) + "\n" for i, c in ROWS),
    ".json": json.dumps(REFERENCES),
    ".token.txt": "a.jpg#0\tA dog runs .\nb.jpg#1\tEin Hündchen .\n",
}


def read(reader, name, content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            return reader(path)
        except ValueError as error:
            assert type(error) is ValueError
            assert name in str(error) and len(str(error)) < 3000
            return None


def is_well_formed(captions) -> bool:
    return all(
        type(i) in (str, int) and {*map(type, g)} <= {str} and g for i, g in captions.items()
    )


@pytest.mark.parametrize("suffix", FILES)
@EXAMPLES
def test_damaged_files_of_captions(suffix, examples):
    def check(content):
        found = read(read_captions, f"captions{suffix}", content)
        assert found is None or is_well_formed(found)

    fuzz(examples, check, damaged(FILES[suffix].encode()))


@pytest.mark.parametrize("valid", [REFERENCES, RESULTS, COCO], ids=["mapping", "results", "coco"])
@EXAMPLES
def test_other_values_in_json(valid, examples):
    def check(tree):
        content = json.dumps(tree).encode()
        found = read(read_captions, "captions.json", content)
        assert found is None or is_well_formed(found)
        single = read(read_predictions, "captions.json", content)
        assert single is None or is_well_formed({i: [c] for i, c in single.items()})

    fuzz(examples, check, changed_json(valid))


@EXAMPLES
def test_damaged_parquet(examples):
    file = io.BytesIO()
    columns = {"image": ["a.jpg", "b.jpg"], "caption": ["A dog runs .", "Ein Hündchen ."]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)

    def check(content):
        found = read(read_captions, "captions.parquet", content)
        assert found is None or is_well_formed(found)

    fuzz(examples, check, damaged(file.getvalue()))


@EXAMPLES
def test_other_values_in_a_line(examples):
    def check(tree):
        content = f"{FILES['.jsonl']}{json.dumps(tree)}\n".encode()
        found = read(read_captions, "captions.jsonl", content)
        assert found is None or is_well_formed(found)

    fuzz(examples, check, changed_json({"image": "a.jpg", "caption": "A dog ."}))


@EXAMPLES
def test_damaged_predictions(examples):
    def check(content):
        found = read(read_predictions, "predictions.json", content)
        assert found is None or is_well_formed({i: [c] for i, c in found.items()})

    fuzz(examples, check, damaged(json.dumps(RESULTS[1:]).encode()))


@pytest.mark.parametrize("reader", [read_captions, read_predictions])
@pytest.mark.parametrize(
    "content", ["[" * 100_000, "9" * 100_000, '{"a":' * 100_000, "NaN", "", '[{"image_id": 1e400}]']
)
def test_what_json_itself_refuses(reader, content):
    assert read(reader, "a.json", content.encode()) is None
