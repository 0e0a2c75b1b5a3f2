"""Checks before a run starts what would fail only at its end, after hours of work.

    print(export(setup))            # my-captioner.npz, in float16
    print(decoding(setup))          # greedy, up to 48 tokens

They are among the checks of `checks`, with the same errors.
"""

import functools
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from paligemma_lib.checkpoint.adapters.adapter_folder import IN_WORKDIR
from paligemma_lib.checkpoint.final_export import holds_export
from paligemma_lib.checkpoint.target_names import target_kind
from paligemma_lib.decode import extend, hypotheses, prefill
from paligemma_lib.decode.programs import Strategy
from paligemma_lib.decode.samplers import image_keys
from paligemma_lib.decode.samples import Hypotheses
from paligemma_lib.model import abstract_params
from paligemma_lib.run.assembly import sampler_of
from paligemma_lib.run.config import TRACKERS
from paligemma_lib.run.dotted import is_dotted, load_dotted
from paligemma_lib.run.rewards import own_reward
from paligemma_lib.run.setup import Setup
from paligemma_lib.run.training_config import RewardConfig
from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.train.compatibility import CHECKPOINTS, newest_run

_PROMPT = 4  # tokens of the prompt that decoding is tried with


def export(setup: Setup) -> str:
    """Checks the name, the type and the place of the exported model."""
    config = setup.config
    name = config.export_name
    if not name:
        return f"{path_of(config.workdir) / IN_WORKDIR}, an adapter as PEFT writes it"
    target = path_of(config.workdir) / name
    kind = target_kind(os.fspath(target))
    if kind == "folder" and Path(name).parts[:1] == (CHECKPOINTS,):
        raise ValueError(f"export={name}: the folder of the run's checkpoints; rename it")
    inside = Path(name).parent == Path(".")
    if not inside and not target.parent.is_dir():
        raise FileNotFoundError(f"export={name}: {target.parent} is no folder; create it")
    if kind == "npz" and target.is_dir():
        raise IsADirectoryError(f"export={name}: {target} is a folder; use another name")
    if kind == "folder":
        holds_export(target)
    start = path_of(config.model.checkpoint or "none")
    if not is_remote(start) and start.exists() and target.exists() and start.samefile(target):
        raise FileExistsError(f"export={name}: the checkpoint that the run starts from")
    foreign = not inside and not _is_own(setup)
    if foreign and kind == "npz":
        beside = target.with_name("tokenizer.model")
        same = not setup.tokenizer_pending and not is_remote(beside) and beside.exists()
        if beside.exists() and not (same and beside.read_bytes() == setup.tokenizer.serialized()):
            raise FileExistsError(
                f"export={name}: {beside} is the tokenizer of another model, and would be "
                "replaced: export to a folder of its own"
            )
    if foreign and target.exists():
        raise FileExistsError(
            f"export={name}: {target} exists, and is not of this run: use another name"
        )
    return f"{target}, {'a folder' if kind == 'folder' else 'a file'} in {config.export_dtype}"


def _is_own(setup: Setup) -> bool:
    """Whether the run in the workdir exports to this place, so that it may do so again."""
    _, run = newest_run(path_of(setup.config.workdir) / CHECKPOINTS)
    before = run.get("config")
    return isinstance(before, dict) and before.get("export") == setup.config.export


def decoding(setup: Setup) -> str:
    """Checks the sampler: one of the user's own is traced with the shapes of the model."""
    config = setup.config
    sampler = sampler_of(config.sampler)
    told = f"{config.sampler}, up to {config.max_new_tokens} tokens"
    if not is_dotted(config.sampler):
        return told
    size = setup.model.vision.image_size
    generate = functools.partial(_generate, setup, sampler)
    try:
        jax.eval_shape(
            generate,
            abstract_params(setup.model),
            jax.ShapeDtypeStruct((1, size, size, 3), np.float32),
        )
    except Exception as error:  # a user's sampler may raise anything
        raise ValueError(
            f"sampler={config.sampler} cannot be used to decode: {type(error).__name__}: {error}"
        ) from error
    return told


def reward(setup: Setup) -> str:
    """Checks the reward: one of the user's own is asked about two captions."""
    options = setup.config.reward
    if not options.name:
        if options != RewardConfig():
            raise ValueError(
                "reward.name is empty, so that the other options of reward have no effect; give "
                "a name, such as cider"
            )
        return "none: people's captions"
    told = f"{options.name}, of {options.samples} captions of each image"
    if not is_dotted(options.name):
        if options.name == "truth" and (setup.given is not None or not setup.config.data.drawn):
            raise ValueError(
                "reward.name=truth: expected drawn scenes, of which alone it is known what is true"
            )
        return told
    asked = ["a dog", "a dog runs"], [("a dog runs .",)] * 2, ["1.jpg"] * 2
    try:
        found = np.asarray(own_reward(options.name)(*asked), np.float64)
    except Exception as error:  # a user's reward may raise anything
        raise ValueError(
            f"reward.name={options.name} cannot be used: {type(error).__name__}: {error}"
        ) from error
    if found.shape != (2,) or not np.isfinite(found).all():
        raise ValueError(
            f"reward.name={options.name} returned {found!r:.60} for two captions, expected two "
            "finite numbers"
        )
    return told


def trackers(setup: Setup) -> str:
    """Checks that the trackers can be imported."""
    for name in setup.config.trackers:
        if not callable(load_dotted(TRACKERS.get(name, name), "trackers")):
            raise ValueError(f"trackers={name}: not a class or function that makes a tracker")
    return ", ".join(setup.config.trackers) or "none"


def _generate(setup: Setup, sampler: Strategy, params: dict[str, Any], image: Any) -> Hypotheses:
    state = prefill(
        setup.model,
        params,
        image,
        np.ones((1, _PROMPT), np.int32),
        np.full(1, _PROMPT, np.int32),
        sampler=sampler,
        max_new_tokens=setup.config.max_new_tokens,
        keys=image_keys(jax.random.key(0), [0]),
    )
    return hypotheses(extend(setup.model, params, state, setup.config.max_new_tokens))
