"""`paligemma plan`: models by name, what is compiled, what is printed, on a made-up compiler."""

import pytest
from process_cases import ROOT

import paligemma_lib as pg
from paligemma_lib import planning
from paligemma_lib.cli import main
from paligemma_lib.planning import Compiled, Decoding, Training, slices
from paligemma_lib.run import Setup, load


@pytest.fixture
def compiled(monkeypatch):
    """Jobs that were compiled; on v5e whole weights do not fit."""
    jobs = []

    def compile_job(job):
        jobs.append(job)
        whole = isinstance(job.work, Training) and job.work.config.fsdp == 1
        fits = job.topology != "v5e:2x4" or not whole
        return Compiled(
            fits, "" if fits else "needs 17.0 GiB, 1.2 more than the 15.75 GiB of a device",
            peak=(8 if fits else 17) << 30, limit=int(15.75 * 2**30), flops=197e12,
            model_flops=1e14, hbm_bytes=1e9, devices=8,
        )  # fmt: skip

    monkeypatch.setattr(planning, "compile_job", compile_job)
    return jobs


def run(*words):
    return main(["plan", *words])


def model_named(*changes):
    return Setup(load("pod", [f"--config.model.{each}" for each in changes])).model


def test_a_published_model_is_known_by_its_name():
    found = model_named("checkpoint=google/paligemma-2/jax/paligemma2-28b-pt-448", "remat=dots")
    sizes = pg.model.variants.paligemma2_28b(448)
    assert (found.language, found.vision) == (sizes.language, sizes.vision)
    assert (found.remat, found.dtype) == ("dots", "bfloat16")
    assert model_named("image_size=896").vision.num_tokens == 4096


def test_a_new_model_has_the_vocabulary_of_its_tokenizer():
    assert model_named("checkpoint=", "vocab_size=2048").language.vocab_size == 2048


def test_a_model_that_is_none_is_refused(capsys):
    name = "google/paligemma/jax/paligemma-4b-pt-224"
    with pytest.raises(ValueError, match="not the name of a published model"):
        model_named(f"checkpoint={name}")
    assert run(f"--config.model.checkpoint={name}") == 1
    assert (
        "paligemma plan: " in (err := capsys.readouterr().err)
        and "not the name of a published model" in err
    )


def test_split_and_whole_weights_are_compared_on_each_topology(compiled, capsys):
    assert run("--topology=v5e:2x4,v5p:2x2x2", "--batch_size=512") == 0
    assert [(job.topology, job.work.config.fsdp) for job in compiled] == [
        ("v5e:2x4", 0), ("v5e:2x4", 1), ("v5p:2x2x2", 0), ("v5p:2x2x2", 1),
    ]  # fmt: skip
    assert {job.work.config.batch_size for job in compiled} == {512}
    out = capsys.readouterr().out
    assert "v5e:2x4 replicated needs 17.0 GiB, 1.2 more than the 15.75 GiB of a device" in out
    assert "Try fsdp=0, model.frozen_dtype=nf4, model.remat=full, microbatches=2" in out
    assert "Predictions: nothing was run" in out
    assert "paligemma-3b-pt-224, 224 pixels: a step of 512 examples" in out


def test_what_a_million_images_take_is_told_with_its_price(compiled, capsys):
    assert run("--topology=v6e:2x4,v4:2x2x1,cpu:2", "--batch_size=500") == 0
    out = capsys.readouterr().out
    # 2,000 steps of 197/918 s: 0.119 hours on 8 chips at 2.70 USD an hour.
    assert "v6e:2x4 fsdp: 0.119 hours, 2.58 USD (8 chips, 2.70 USD an hour)\n" in out
    assert "v4:2x2x1 fsdp: 0.398 hours on 4 chips, whose price is not known\n" in out
    assert "cpu:2 fsdp: " not in out
    assert run("--decode", "--topology=v6e:2x4", "--batch_size=1000") == 0
    assert "v6e:2x4 tensor: 0.0596 hours, 1.29 USD" in capsys.readouterr().out


def test_weights_that_are_split_otherwise_are_compared_too(compiled):
    assert run("--config.fsdp=4", "--slices=2") == 0
    assert [job.work.config.fsdp for job in compiled] == [4, 1]
    assert {job.slices for job in compiled} == {2}
    compiled.clear()
    assert run("--config.fsdp=1", "--topology=v6e:2x4") == 0
    assert [job.work.config.fsdp for job in compiled] == [1]


def test_no_batch_is_small_enough_for_weights_that_are_too_large(monkeypatch, capsys):
    refused = Compiled(False, "needs 20 GiB", arguments=20 << 30, peak=20 << 30, limit=16 << 30)
    monkeypatch.setattr(planning, "compile_job", lambda job: refused)
    assert run("--topology=v5e:2x4") == 1
    out = capsys.readouterr().out
    assert "v5e:2x4 fsdp needs 20 GiB. Try model.frozen_dtype=nf4, more chips.\n" in out
    assert (
        "v5e:2x4 replicated needs 20 GiB. Try fsdp=0, model.frozen_dtype=nf4, more chips.\n" in out
    )
    assert "not compiled" in out


def test_every_stage_is_compiled(compiled, tmp_path):
    config = tmp_path / "configs" / "two.py"
    config.parent.mkdir()
    config.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'examples')!r})\n"
        "from configs import pod\n\n"
        "def get_config():\n    config = pod.get_config()\n"
        "    config.stages = ({'from_step': 0, 'trainable': 'attention'},\n"
        "        {'from_step': 9, 'trainable': ('llm', 'projector'), 'top_layers': 0})\n"
        "    return config\n"
    )
    assert run(f"--config={config}", "--topology=v6e:2x4") == 0
    patterns = [job.work.config.stages[job.work.stage].trainable for job in compiled]
    assert patterns == [("attention",)] * 2 + [("llm", "projector")] * 2


def test_decoding_compares_layouts(compiled, capsys):
    assert run("--decode", "--slices=2", "--config.max_new_tokens=20") == 0
    assert {type(job.work) for job in compiled} == {Decoding}
    assert {job.work.layout for job in compiled} == {"replicated", "tensor", "fsdp"}
    assert {(job.slices, job.work.config.max_new_tokens) for job in compiled} == {(2, 20)}
    assert "256 captions of 20 tokens" in capsys.readouterr().out
    compiled.clear()
    assert run("--decode", "--batch_size=8") == 0
    assert {job.work.config.decode_batch_size for job in compiled} == {8}
    assert {job.work.config.batch_size for job in compiled} == {256}


def test_nothing_that_fits_is_an_exit_code(monkeypatch, capsys):
    refused = Compiled(False, "needs 99.0 GiB, 83.3 more than the 15.75 GiB of a device")
    monkeypatch.setattr(planning, "compile_job", lambda job: refused)
    assert run("--search") == 1
    assert "v5e:2x4: nothing fits; try more chips" in capsys.readouterr().out


def test_a_search_ends_with_arguments_of_finetune(compiled, capsys):
    assert run("--topology=v6e:2x4", "--search") == 0
    assert {type(job.work) for job in compiled} == {Training}
    lines = capsys.readouterr().out.splitlines()
    (recommended,) = (k for k, line in enumerate(lines) if "the first is recommended" in line)
    *_, batch_size, microbatches, remat, fsdp = lines[recommended + 1].split()
    assert batch_size.startswith("--config.batch_size=")
    assert (microbatches, fsdp) == ("--config.microbatches=1", "--config.fsdp=0")
    assert remat.startswith("--config.model.remat=")
    found = load("pod", [batch_size, microbatches, remat, fsdp])  # they are fields
    assert found.fsdp == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--topology=v5e-8"], "such as v5e:2x4"),
        (["--topology=v6e:2x4,v5e-8"], "such as v5e:2x4"),
        (["--topology="], "such as v5e:2x4"),
        (["--slices=0"], "with 0 slices: give the kind of chip"),
        (["--topolgy=v5e:2x4"], "--topolgy"),
        (["--batch_size=0"], "batch_size=0: expected greater than or equal to 1"),
        (["--batch_size=many"], "invalid int value: 'many'"),
        (["--batch_size=3", "--config.microbatches=2"], "batch_size=3: expected a multiple of"),
        (["--decode", "--batch_size=-1"], "decode_batch_size=-1: expected greater than or"),
        (["--config.batch_siz=3"], "did you mean batch_size?"),
    ],
)
def test_what_is_asked_wrongly_is_told_before_anything_is_compiled(words, told, compiled, capsys):
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert (out, compiled) == ("", [])
    assert told in err and "Traceback" not in err


def test_a_compiler_that_is_not_installed_is_an_error_with_its_cure(monkeypatch, capsys):
    monkeypatch.setattr(slices.importlib.util, "find_spec", lambda name: None)
    assert run("--topology=v5e:2x4", "--config.model.checkpoint=nano") == 1
    assert "needs libtpu, which is not installed: pip install" in capsys.readouterr().err
