"""Our numbers on this device against the reference's, whose results lie in golden files.

In float32 with products in full precision everything must agree to 1e-4: logits, loss, gradients,
greedy tokens with their log-probabilities, beams. What the device's own default precision, bfloat16
and float16 give is told as the largest and the mean difference. Packed captions must have the
gradients of separate ones, and a checkpoint must go on bit for bit.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from accelerator.measuring import Part
from accelerator.real_models import batch_of, random_params
from paligemma_lib import decode, model, sharding, train
from paligemma_lib.data import pack
from paligemma_lib.model.variants import GemmaConfig, PaliGemmaConfig, SiglipConfig

TOLERANCE = 1e-4


def tiny(version: int) -> PaliGemmaConfig:
    """The sizes of the golden files."""
    gemma2: dict[str, Any] = {"attention_softcap": 50.0, "post_norms": True} if version == 2 else {}
    language = GemmaConfig(
        width=64, depth=3, mlp_dim=128, num_heads=4, num_kv_heads=version, head_dim=16,
        vocab_size=512, **gemma2,
    )  # fmt: skip
    vision = SiglipConfig(image_size=32, patch_size=8, width=48, depth=2, mlp_dim=96, num_heads=4)
    return PaliGemmaConfig(vision, language)


class Golden:
    """A golden file: parameters, a batch of the contract, and what the reference computed."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.all = {name: file[name] for name in file.files}
        flat = {
            name.removeprefix("params/"): value.astype(np.float32)
            for name, value in self.all.items()
            if name.startswith("params/")
        }
        self.params = unflatten_dict(flat, sep="/")
        text = self.all["batch/text"]
        segment = np.where(self.all["batch/mask_input"] == 1, self.all["batch/mask_ar"], -1)
        segment = segment.astype(np.int32)
        counts = np.sum(segment > 0, axis=1, keepdims=True)
        self.batch = {
            "image": self.all["batch/image"],
            "text": text,
            "segment": segment,
            "position": np.broadcast_to(np.arange(text.shape[1], dtype=np.int32), text.shape),
            "loss_weight": ((segment > 0) / counts).astype(np.float32),
        }
        self.supervised = self.all["batch/mask_loss"][:, 1:] == 1


def differences(config: PaliGemmaConfig, golden: Golden) -> tuple[float, float]:
    """Largest and mean difference of the supervised logits."""

    @jax.jit
    def logits(params: Any, batch: Any) -> jax.Array:
        names = ("image", "text", "segment", "position")
        hidden = model.hidden_states(config, params, **{name: batch[name] for name in names})
        return model.logits(config, params, hidden)

    params = jax.tree.map(lambda x: jnp.asarray(x, config.dtype), golden.params)
    got = np.asarray(logits(params, golden.batch), np.float32)[:, :-1]
    apart = np.abs(got - golden.all["logits"])[golden.supervised]
    return float(apart.max()), float(apart.mean())


def loss_and_gradients(config: PaliGemmaConfig, params: Any, batch: Any) -> tuple[Any, dict]:
    """The loss, and its gradients for the language model's attention, by name."""
    flat = flatten_dict(params, sep="/")
    attention = {k: jnp.asarray(v) for k, v in flat.items() if k.startswith("llm/layers/attn/")}

    @jax.jit
    def both(attention: Any, batch: Any) -> Any:
        def loss(attention: Any) -> jax.Array:
            merged = unflatten_dict({**flat, **attention}, sep="/")
            nll, weight = train.loss.token_losses(config, merged, batch)
            return jnp.sum(nll * weight) / jnp.sum(weight)

        return jax.value_and_grad(loss)(attention)

    return both(attention, batch)


def worst(got: dict, expected: dict) -> float:
    """The largest difference of gradients, each against the largest value of its own."""
    return max(
        float(np.abs(np.asarray(got[name]) - value).max() / np.abs(value).max())
        for name, value in expected.items()
    )


def decoded(config: PaliGemmaConfig, golden: Golden, sampler: Any) -> Any:
    """Hypotheses for the golden prompts, with as much room as the reference had."""
    length = golden.all["prompt_mask"].sum(axis=1)
    prompt = golden.all["prompt_text"][:, : length.max()]
    room = golden.all["greedy_logp"].shape[1]
    params = jax.tree.map(jnp.asarray, golden.params)
    greedy = isinstance(sampler, decode.Greedy)
    state = decode.prefill(
        config, params, golden.all["batch/image"], prompt, length,
        sampler=sampler, max_new_tokens=room, min_new_tokens=room - 1 if greedy else 0,
    )  # fmt: skip
    state = decode.extend(config, params, state, room)
    return jax.device_get(decode.hypotheses(state))


def packed_against_separate() -> float:
    """How far the gradients of three packed captions are from those of three examples."""
    config = tiny(2)
    params = jax.tree.map(np.asarray, random_params(config, lambda name: "float32"))
    packed = batch_of(config, images=2, captions=3, text_len=64)
    rows = []
    for image, text, segment in zip(
        packed["image"], packed["text"], packed["segment"], strict=True
    ):
        for k in range(1, 4):
            rows.append({"image": image, **pack(text[segment == 0], [text[segment == k]], 64)})
    separate = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    _, one = loss_and_gradients(config, params, packed)
    _, other = loss_and_gradients(config, params, separate)
    return worst(one, {name: np.asarray(value) for name, value in other.items()})


def goes_on_bit_for_bit() -> bool:
    """Whether four steps with a checkpoint in between are four steps."""
    config = tiny(1)
    mesh = sharding.make_mesh()
    optimizer = train.make_optimizer("adamw", learning_rate=1e-3, total_steps=4)
    batch = batch_of(config, images=4, captions=2, text_len=48)
    step = train.make_train_step(config, optimizer, mesh=mesh)

    def start(_: int = 0) -> train.TrainState:
        params = random_params(config, lambda name: "float32")
        params = jax.device_put(params, sharding.replicated(mesh))
        return train.init_state(config, params, optimizer, trainable="attention", mesh=mesh)

    with tempfile.TemporaryDirectory() as folder:
        state = start()
        for number in range(4):
            if number == 2:
                with train.Checkpoints(folder) as checkpoints:
                    checkpoints.save(state, {})
            state, _ = step(state, batch)
        with train.Checkpoints(folder) as checkpoints:
            again = checkpoints.restore(start)
        for _ in range(2):
            again, _ = step(again, batch)
    return train.fingerprint(state.trained) == train.fingerprint(again.trained)


def check(part: Part, what: str, difference: float, wrong: list[str]) -> None:
    """Tells a difference that must be small."""
    fine = difference < TOLERANCE
    part.emit(what, difference, "", f"within {TOLERANCE:g}" if fine else f"MORE THAN {TOLERANCE:g}")
    if not fine:
        wrong.append(what)


def golden_parity(part: Part, version: int, golden: Golden, wrong: list[str]) -> None:
    """Everything that the reference has computed, again on this device."""
    config, name = tiny(version), f"PaliGemma {version}"
    with jax.default_matmul_precision("highest"):
        check(part, f"{name}: logits in float32, largest difference of 34",
              differences(config, golden)[0], wrong)  # fmt: skip
        loss, gradients = loss_and_gradients(config, golden.params, golden.batch)
        check(part, f"{name}: loss", abs(float(loss) - float(golden.all["loss"])), wrong)
        expected = {name: golden.all[f"grad/{name}"] for name in gradients}
        check(part, f"{name}: gradients of attention", worst(gradients, expected), wrong)
        found = decoded(config, golden, decode.Greedy())
        same = np.array_equal(found.tokens[:, 0], golden.all["greedy_tokens"])
        apart = float(np.abs(found.logprobs[:, 0] - golden.all["greedy_logp"]).max())
        check(part, f"{name}: greedy log-probabilities", apart if same else np.inf, wrong)
        for size in (2, 4):
            found = decoded(config, golden, decode.Beam(size, nbest=1))
            expected_tokens = golden.all[f"beam{size}_tokens"]
            tokens = found.tokens[:, 0, : expected_tokens.shape[1]]
            different = float(np.sum(tokens != expected_tokens))
            check(part, f"{name}: tokens that differ, {size} beams", different, wrong)
    for dtype in ("float32", "bfloat16", "float16"):
        most, mean = differences(dataclasses.replace(config, dtype=dtype), golden)
        part.emit(f"{name}: logits in {dtype}, default precision", most, "", f"mean {mean:.2g}")


def main() -> None:
    part = Part.of_command_line()
    wrong: list[str] = []
    for version in (1, 2):
        path = part.golden / f"paligemma{version}_tiny.npz"
        if path.is_file():
            golden_parity(part, version, Golden(path), wrong)
        else:
            part.emit(f"PaliGemma {version}: not compared", None, "", f"{path.name} does not exist")
    with jax.default_matmul_precision("highest"):
        check(part, "packed against separate captions", packed_against_separate(), wrong)
    same = goes_on_bit_for_bit()
    part.emit("a checkpoint goes on bit for bit", "yes" if same else "NO")
    if wrong or not same:
        sys.exit(f"differs from the reference: {', '.join(wrong) or 'the checkpoint'}")


if __name__ == "__main__":
    main()
