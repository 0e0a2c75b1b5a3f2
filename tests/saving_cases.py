"""A small state of training, in any step, for tests of checkpoints."""

import jax
import model_cases as cases

from paligemma_lib import sharding
from paligemma_lib.train import init_state, make_optimizer, restage
from paligemma_lib.trainable import Select

CONFIG = cases.tiny_config(1)
MESH = sharding.make_mesh(devices=jax.devices()[:1])
TOP = Select("attention", top_layers=2)
RUN = {"seed": 3, "optimizer": {"name": "adamw", "stages": (1, 2)}}


def state_of(name="adamw", seed=0, step=0, what=TOP):
    optimizer = make_optimizer(name, learning_rate=0.1, total_steps=9)
    params = jax.device_put(cases.random_params(CONFIG, seed), sharding.replicated(MESH))
    state = init_state(CONFIG, params, optimizer, trainable=what, mesh=MESH)
    state = restage(state, optimizer, [what, "projector"])
    shift = jax.tree.map(lambda x: x + (step + 1), state)  # nothing stays at its start
    return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(shift))


def at_step(state, step):
    object.__setattr__(state, "step", state.step * 0 + step)
    return state


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def largest(folder):
    """The file with the arrays."""
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
