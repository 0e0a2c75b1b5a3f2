"""`paligemma show` and `convert`: what a checkpoint is or what is wrong, and another format."""

import json
import os
import pickle

import model_cases as cases
import numpy as np
import pytest

from paligemma_lib import model, tokenizer
from paligemma_lib.checkpoint import huggingface, save_params
from paligemma_lib.checkpoint.huggingface import writer
from paligemma_lib.checkpoint.huggingface.folder import INDEX, WEIGHTS
from paligemma_lib.cli import main
from paligemma_lib.testing import tiny_tokenizer
from paligemma_lib.tokenizer.fast_tokenizer import tokenizer_json

CONFIG = cases.tiny_config(2)
PARAMS = cases.random_params(CONFIG)


@pytest.fixture
def npz(tmp_path):
    save_params(tmp_path / "a.npz", PARAMS)
    return tmp_path / "a.npz"


@pytest.fixture
def folder(tmp_path):
    return huggingface.export(PARAMS, CONFIG, tmp_path / "model")


@pytest.fixture
def nano(tmp_path):
    save_params(tmp_path / "nano.npz", cases.random_params(model.variants.nano()), "bfloat16")
    return tmp_path / "nano.npz"


def test_it_says_what_an_npz_is(nano, npz, capsys):
    assert main(["show", str(nano)]) == 0
    out = capsys.readouterr().out
    assert f"{nano}: nano at 96 pixels, bfloat16\n" in out
    assert " parameters in " in out and "32 arrays, all checksums match" in out
    assert main(["show", str(nano), "--model", "nano"]) == 0
    assert main(["show", str(npz)]) == 0
    assert f"{npz}: a custom model at 32 pixels, float32\n" in capsys.readouterr().out


def test_it_says_what_a_folder_is(tmp_path, folder, monkeypatch, capsys):
    assert main(["show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{folder}: a custom model at 32 pixels, float32\n" in out
    assert "74 tensors in 1 file, all sizes match" in out
    monkeypatch.setattr(writer, "MAX_FILE_BYTES", 200_000)
    several = huggingface.export(PARAMS, CONFIG, tmp_path / "several", dtype="bfloat16")
    assert main(["show", str(several)]) == 0
    assert "74 tensors in 3 files" in capsys.readouterr().out
    assert (several / INDEX).is_file()


def test_it_says_what_is_wrong(nano, folder, tmp_path, capsys):
    def wrong(path, *options):
        assert main(["show", str(path), *options]) == 1
        out, err = capsys.readouterr()
        assert not out
        return err

    data = nano.read_bytes()
    assert "It is nano at 96 pixels" in wrong(nano, "--model", "paligemma_3b")
    nano.write_bytes(data[: len(data) // 2])
    assert "download it again" in wrong(nano)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    nano.write_bytes(flipped)
    assert "Bad CRC-32" in wrong(nano)
    assert "does not exist" in wrong(tmp_path / "none.npz")
    arrays = cases.flatten(PARAMS)
    arrays["llm/surplus"] = arrays.pop("llm/final_norm/scale")
    np.savez(nano, **arrays)
    assert "  1 missing: llm/final_norm/scale\n  1 unexpected: llm/surplus\n" in wrong(nano)
    nano.write_bytes(pickle.dumps({"w": 1}))
    assert "not a complete .npz file" in wrong(nano)
    os.truncate(folder / WEIGHTS, 1000)
    assert "1,000 bytes that are not a complete safetensors file" in wrong(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}))
    assert "model_type is 'llava'" in wrong(folder)


def test_it_converts_and_certifies(npz, tmp_path, capsys):
    fast = tmp_path / "tokenizer.json"
    fast.write_text(json.dumps(tokenizer_json(tiny_tokenizer().serialized())))
    words = [str(npz), str(tmp_path / "model"), "--tokenizer", str(fast)]
    assert main(["convert", *words]) == 0
    found = tokenizer.load(tmp_path / "model" / "tokenizer.model")
    assert found.encode_suffix("a dog") == tiny_tokenizer().encode_suffix("a dog")
    assert main(["convert", str(npz), str(tmp_path / "again")]) == 0  # it lies beside the source
    again, model = (tmp_path / name / "tokenizer.model" for name in ("again", "model"))
    assert again.read_bytes() == model.read_bytes()
    count = sum(value.size for value in cases.flatten(PARAMS).values())
    out = capsys.readouterr().out
    assert f"{count:,} of {count:,} parameters are bit-equal\nlogits differ by at most 0" in out
    command = ["convert", str(tmp_path / "model"), str(tmp_path / "b.npz"), "--dtype", "float16"]
    assert main(command) == 0
    assert f" of {count:,} parameters are bit-equal" in capsys.readouterr().out
    assert main(command) == 1
    assert "b.npz exists" in capsys.readouterr().err


def test_a_conversion_that_lost_something_fails(npz, tmp_path, monkeypatch, capsys):
    def lossy(source, target, dtype, tokenizer):
        save_params(target, PARAMS, "bfloat16")

    monkeypatch.setattr("paligemma_lib.checkpoint.conversion.convert", lossy)
    assert main(["convert", str(npz), str(tmp_path / "b.npz")]) == 1
    assert "do not use" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["show"], ["convert", "a"], ["show", "a", "--model", "x"]])
def test_a_wrong_command_is_exit_code_2(words, capsys):
    assert main(words) == 2
    assert f"see paligemma {words[0]} --help" in capsys.readouterr().err
