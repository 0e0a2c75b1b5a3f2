"""Generates captions of images: prefill, a jitted token loop, samplers and beam search.

captions = pg.decode.generate(config, params, images, tokenizer, prompt="caption en",
                              sampler=pg.decode.Beam(4))
captions[0].text

Or a few tokens at a time, to show a caption while it is generated:

prompt, length = pg.decode.pad_prompts([tokenizer.encode_prefix("caption en")])
state = pg.decode.prefill(config, params, image, prompt, length)
while not pg.decode.finished(state):
    state = pg.decode.extend(config, params, state, 4)
    print(tokenizer.decode(pg.decode.tokens_so_far(state)[0]))
"""

from paligemma_lib.decode.beam import Beam
from paligemma_lib.decode.captions import Caption, captions_from, generate
from paligemma_lib.decode.loop import (
    State,
    extend,
    finished,
    hypotheses,
    prefill,
    tokens_so_far,
)
from paligemma_lib.decode.prompt import pad_prompts
from paligemma_lib.decode.repetition import (
    LogitsProcessor,
    NoRepeatNgram,
    Processed,
    RepetitionPenalty,
)
from paligemma_lib.decode.samplers import BestOf, Greedy, Sample, Sampler, Written, image_keys
from paligemma_lib.decode.samples import NotFinite

__all__ = [
    "Beam",
    "BestOf",
    "Caption",
    "Greedy",
    "LogitsProcessor",
    "NoRepeatNgram",
    "NotFinite",
    "Processed",
    "RepetitionPenalty",
    "Sample",
    "Sampler",
    "State",
    "Written",
    "captions_from",
    "extend",
    "finished",
    "generate",
    "hypotheses",
    "image_keys",
    "pad_prompts",
    "prefill",
    "tokens_so_far",
]
