"""Validates during training (third of four parts): validation loss and captions of test images.

validation = Validation(prepared, progress, termination)
losses |= validation.run(state, done=120)         # {120: 2.3}; {}: asked to end meanwhile
"""

import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paligemma_lib.batch import Batch
from paligemma_lib.captioner import Captioned
from paligemma_lib.data.image import decode_image
from paligemma_lib.decode import NotFinite
from paligemma_lib.run.batching import eval_batches_of
from paligemma_lib.run.captioning import caption_test_images
from paligemma_lib.run.prepare import Prepared
from paligemma_lib.runtime.termination import Termination
from paligemma_lib.train import Progress, TrainState, make_eval_step

_log = logging.getLogger(__name__)

_SHOWN = 2  # captions at each validation


class Validation:
    """Computes the validation loss of a run and shows captions of test images."""

    def __init__(self, prepared: Prepared, progress: Progress, termination: Termination) -> None:
        """Makes the eval step, which compiles at its first call."""
        self._prepared, self._progress, self._termination = prepared, progress, termination
        self._eval_step = make_eval_step(prepared.model, mesh=prepared.mesh)

    def run(self, state: TrainState, done: int) -> dict[int, float]:
        """Computes and records the validation loss, and shows captions of a few test images.

        Args:
          state: the state of training.
          done: number of steps done, to record with the loss.

        Returns:
          The mean loss over all captions of the validation images, by `done`; nothing if a process
          is asked to end meanwhile.
        """
        prepared, progress = self._prepared, self._progress
        size = prepared.model.vision.image_size
        batches = eval_batches_of(
            prepared.config, prepared.data["validation"], prepared.tokenizer, image_size=size
        )
        params = state.averaged_params()
        sums = np.zeros(2)
        with progress.paused():
            for batch in batches:
                # A validation may take minutes, longer than the time that is left after a signal.
                if self._termination.agreed():
                    return {}
                losses, weights = self._eval_step(params, batch)
                # Add up numerators and denominators separately. The last batch is filled up with
                # examples of weight 0, so a mean of the batches' means would be wrong.
                sums += [float(jnp.sum(losses)), float(jnp.sum(weights))]
            shown = [] if self._termination.agreed() else self._captions(params)
        loss = float(sums[0] / sums[1])
        progress.note(done, {"validation_loss": loss})
        for each in shown:
            pixels = functools.partial(self._pixels, each.number)
            progress.show(done, each.image_id, pixels, each.caption.text)
        return {done: loss}

    def _captions(self, params: dict[str, Any]) -> list[Captioned]:
        """Returns captions of a few test images."""
        try:
            return caption_test_images(self._prepared, params, count=_SHOWN)[0]
        except NotFinite as error:
            # Whether a run that diverges goes on is decided by its steps, which name the batch.
            if jax.process_index() == 0:
                _log.warning("no captions at this validation: %s", error)
            return []

    def losses(self, state: TrainState, batch: Batch) -> jax.Array:
        """Returns float32[B], the weighted sum of the losses of each example's tokens."""
        # Sampled captions that are worth less than others have negative weights.
        weights = {"loss_weight": np.abs(batch["loss_weight"])}
        return self._eval_step(state.all_params(), {**batch, **weights})[0]

    def _pixels(self, number: int) -> np.ndarray:
        """Reads a test image as the model sees it: uint8[S, S, 3]."""
        (record,) = self._prepared.data["test"].read([number])
        size, upright = (
            self._prepared.model.vision.image_size,
            self._prepared.config.data.apply_exif,
        )
        pixels = decode_image(record.image, size, apply_exif=upright)
        return np.round((pixels + 1) * 127.5).astype(np.uint8)  # [-1, 1] -> [0, 255]
