"""Folders of safetensors that were made to do harm, or changed in any field."""

import json
import math
import tracemalloc

import pytest
from fuzzing import EXAMPLES, changed_json, damaged, fuzz
from huggingface_cases import exported

from paligemma_lib.checkpoint import read_config
from paligemma_lib.checkpoint.huggingface import SafetensorsReader, format, settings
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG, read_config_json
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS, weight_files
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.runtime.visible_text import visible, visible_lines


def file_of(header, num_bytes=16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(num_bytes)


def tensor(begin, end, shape=None, dtype="F32"):
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / WEIGHTS


def test_a_good_file_is_read(path):
    header = {"b": tensor(8, 16), "a": tensor(0, 8), "none": tensor(8, 8, [0])}
    path.write_bytes(file_of({**header, "__metadata__": {"format": "pt"}}))
    assert {name: e.shape for name, e in format.read_header(path).items()} == {
        "b": (2,), "a": (2,), "none": (0,)
    }  # fmt: skip


HUGE = 1 << 62
TWICE = b'{"a":' + json.dumps(tensor(0, 16)).encode()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"a": tensor(0, 12), "b": tensor(8, 16)}, "b begins at byte .* where the tensor before"),
        ({"a": tensor(0, 16), "b": tensor(0, 16)}, "b begins at byte"),
        ({"a": tensor(0, 4), "b": tensor(8, 16)}, "b begins at byte"),
        ({"a": tensor(4, 16)}, "a begins at byte"),
        ({"a": tensor(0, 8)}, "its tensors end at byte"),
        ({"a": tensor(0, 24)}, "its tensors end at byte"),
        ({"a": tensor(0, 16, [HUGE, HUGE, HUGE])}, "a of shape .* lies at 0 to 16"),
        ({"a": tensor(0, 16, [1 << 32, 1 << 32])}, "a of shape"),
        ({"a": tensor(0, 16, [0, HUGE])}, "a of shape"),
        ({"a": tensor(0, 16, [1 << 63])}, "a has no shape"),
        ({"a": tensor(0, 16, [1] * 33)}, "a has no shape of at most 32"),
        ({"a": tensor(0, 16, [4], dtype="I64")}, "a of shape"),
        ({"a": tensor(0, 16, dtype=["F32"])}, "a has no dtype"),
        ({"a": tensor(16, 0, [4], dtype="X9")}, "a of shape"),
        ({"a": 3}, "a has no dtype, shape"),
        ({"a\x1b[2J": 3}, r"a\\x1b\[2J has no dtype"),
        (TWICE + b"," + TWICE[1:] + b"}", "a stands there twice"),
        (TWICE[:-1] + b',"shape":[1]}}', "shape stands there twice"),
        (b'{"a":' * 100_000, "not a complete"),
        (b"[" * 100_000 + b"]" * 100_000, "not a complete"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not a complete"),
        (b'{"a": "\xff"}', "not a complete"),
        (b"[]", "it is not a JSON object"),
        (b"\xff\xfe", "not a complete"),
    ],
)
def test_headers_that_contradict_themselves(path, header, reason):
    path.write_bytes(file_of(header))
    with pytest.raises(ValueError, match=f"{path}: .*{reason}") as caught:
        format.read_header(path)
    assert str(caught.value) == visible(str(caught.value)) and len(str(caught.value)) < 2000


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40, (16 << 20) + 1])
def test_a_header_of_absurd_size_is_not_read(path, length):
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + b"{}" + bytes(90))
        file.truncate(1 << 41)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"a header of {length:,} bytes"):
        format.read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".safetensors", "\x1b.safetensors", "\ud800.safetensors"]
)
def test_an_index_of_odd_names_is_refused(tmp_path, name):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="each a bare") as caught:
        weight_files(tmp_path)
    assert str(caught.value) == visible(str(caught.value)) and len(str(caught.value)) < 1000


# --- Any change


VALID = file_of({"b": tensor(8, 16), "a": tensor(0, 8, dtype="BF16", shape=[4])})


def header_or_refused(path, data):
    path.write_bytes(data)
    try:
        entries = format.read_header(path)
    except ValueError as error:
        assert type(error) is ValueError and str(path) in str(error)
        return
    for entry in entries.values():
        assert entry.start + entry.num_bytes <= len(data)
        if entry.dtype is not None:
            assert math.prod(entry.shape) * entry.dtype.itemsize == entry.num_bytes
    assert sum(entry.num_bytes for entry in entries.values()) <= len(data)


@EXAMPLES
def test_any_damage_of_a_file(path, examples):
    fuzz(examples, lambda data: header_or_refused(path, data), damaged(VALID))


@EXAMPLES
def test_any_change_of_a_header(path, examples):
    header = {"b": tensor(8, 16), "a": tensor(0, 8, dtype="BF16", shape=[4])}

    def check(tree):
        header_or_refused(path, file_of(tree))

    fuzz(examples, check, changed_json(header))


def refused_or(call, *expected):
    """Calls it; nothing but the documented errors may come out, with text that can be shown."""
    try:
        call()
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError)
        assert str(error) == visible_lines(str(error))


@EXAMPLES
def test_any_change_of_an_index(tmp_path, examples):
    (tmp_path / "a.safetensors").write_bytes(VALID)
    index = {
        "metadata": {"total_size": 16},
        "weight_map": {"a": "a.safetensors", "b": "a.safetensors"},
    }

    def check(tree):
        (tmp_path / INDEX).write_text(json.dumps(tree))
        refused_or(lambda: weight_files(tmp_path))

    fuzz(examples, check, changed_json(index))


@EXAMPLES
def test_any_change_of_a_config(tmp_path, examples):
    """Of the config alone, and of the folder that it belongs to."""
    config, _, folder = exported(tmp_path, version=2)
    valid = settings.model_settings(config, "float32")
    assert read_config(folder) == config

    def check(tree):
        (folder / CONFIG).write_text(json.dumps(tree))
        refused_or(lambda: open_folder(folder))

    fuzz(examples, check, changed_json(valid))


def open_folder(folder):
    with SafetensorsReader(folder, read_config(folder)) as file:
        file.read("img/head/bias")


@EXAMPLES
def test_any_damage_of_a_config(tmp_path, examples):
    config, _, _ = exported(tmp_path, version=1)
    valid = json.dumps(settings.model_settings(config, "float32")).encode()

    def check(data):
        (tmp_path / CONFIG).write_bytes(data)
        refused_or(lambda: read_config_json(tmp_path / CONFIG))

    fuzz(examples, check, damaged(valid))


def test_values_of_json_that_no_json_has():
    assert json_object(b'{"a": NaN}')
    with pytest.raises(ValueError, match="it is not a JSON object"):
        json_object(b"NaN")
