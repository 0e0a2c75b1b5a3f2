"""A run that averages: it exports the average, and goes on bit for bit."""

import shutil

import numpy as np
import pytest
from finetune_cases import exported, finetune, losses, of, tiny_run


@pytest.mark.slow
def test_the_average_is_exported_and_a_run_goes_on_with_it(tmp_path):
    config = of(tiny_run(tmp_path), tmp_path / "plain", evaluate_before=False, keep=20)
    averaged = of(config, tmp_path / "averaged", **{"optimizer.ema": 0.8})
    assert finetune(config) == finetune(averaged) == 0
    # It trains the same, and validates something else.
    assert losses(averaged.workdir) == pytest.approx(losses(config.workdir), rel=1e-5)
    name = "validation_loss"
    assert losses(config.workdir, name) != losses(averaged.workdir, name)
    name = "params/llm/layers/attn/q_einsum/w"
    whole = exported(averaged.workdir)
    assert np.abs(whole[name] - exported(config.workdir)[name]).max() > 1e-3

    again = of(averaged, tmp_path / "again", allow_changed=("workdir",))
    shutil.copytree(averaged.workdir, again.workdir)
    for step in (tmp_path / "again" / "checkpoints").iterdir():
        if int(step.name) > 5:
            shutil.rmtree(step)
    for file in (tmp_path / "again").glob("*.npz"):
        file.unlink()
    assert finetune(again) == 0
    for name, value in exported(again.workdir).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
