"""What the notebook shows: the live curve, the mask, what fits."""

import re
import sys
import types

import numpy as np
import pytest

import paligemma_lib as pg
from paligemma_lib.batch import attention_mask
from paligemma_lib.notebook import views


@pytest.fixture(scope="module")
def tokenizer():
    return pg.testing.tiny_tokenizer()


def count(html: str, tag: str, kind: str = "") -> int:
    return len(re.findall(rf'<{tag} class="{kind}"' if kind else f"<{tag}[ >]", html))


def test_the_mask_has_a_cell_for_each_pair_of_slots_that_see_each_other(tokenizer):
    batch = pg.testing.tiny_batch(tokenizer, captions=2)
    segment, position = batch["segment"][0], batch["position"][0]
    prefix, one, two = (int(np.sum(segment == k)) for k in (0, 1, 2))
    html = views.mask(batch, tokenizer)._repr_html_()
    rows = 1 + prefix + one + two
    assert count(html, "rect", "image") == rows  # all see the image, the image too
    assert count(html, "rect", "prefix") == prefix * rows
    assert count(html, "rect", "suffix-1") == one * (one + 1) // 2
    assert count(html, "rect", "suffix-2") == two * (two + 1) // 2
    text = segment >= 0
    between_text = int(attention_mask(segment[text], position[text]).sum())
    assert count(html, "rect") == between_text + rows + prefix


def test_the_mask_leaves_out_later_captions_and_padding(tokenizer):
    batch = pg.testing.tiny_batch(tokenizer, captions=3, text_len=64)
    html = views.mask(batch, tokenizer, suffixes=1)._repr_html_()
    assert count(html, "rect", "suffix-1") and not count(html, "rect", "suffix-2")
    slots = int(np.sum((batch["segment"][0] >= 0) & (batch["segment"][0] <= 1)))
    assert count(html, "text") == 2 * (1 + slots)


def test_tokens_and_captions_are_text_not_markup(tokenizer):
    live = views.Live(4)
    live.scalars({"loss": 1.0}, 0)
    live.caption("<b>.jpg", np.zeros((8, 8, 3), np.uint8), "<script>", 1)
    assert "<script>" not in live._repr_html_()
    assert "&lt;script&gt;" in live._repr_html_()


@pytest.fixture
def display(monkeypatch):
    """Stands for IPython's; the list has what was shown, once for each drawing."""
    shown: list[str] = []

    def show(view, display_id):
        shown.append(view._repr_html_())
        return types.SimpleNamespace(update=lambda view: shown.append(view._repr_html_()))

    module = types.SimpleNamespace(display=show)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_the_curve_is_drawn_at_the_start_and_at_the_end(display):
    with views.Live(3) as live:
        for step in range(3):
            live.scalars({"loss": 3.0 - step, "captions_per_second": 50.0}, step)
        live.scalars({"validation_loss": 1.5}, 3)
    assert "compiles" in display[0]
    assert "step 3 of 3, 50 captions/s" in display[-1]
    assert count(display[-1], "polyline", "stroke line-0") == 1
    assert count(display[-1], "polyline", "stroke line-1") == 1


def test_a_fast_run_is_not_drawn_at_every_step(display):
    with views.Live(500) as live:
        for step in range(500):
            live.scalars({"loss": 1.0}, step)
    assert len(display) < 20


def test_captions_stay_with_their_image_and_step(display, tmp_path):
    with (
        views.Live(2) as live,
        pg.train.Progress(tmp_path, total_steps=2, steps_per_epoch=1, trackers=[live]) as progress,
    ):
        for step, caption in enumerate(("a dog", "a red dog")):
            progress.record(step, {"loss": 1.0, "learning_rate": 0.1}, captions=5)
            picture = np.full((8, 8, 3), 200, np.uint8)
            progress.show(step + 1, "1.jpg", lambda picture=picture: picture, caption)
    assert count(display[-1], "img") == 1
    told = re.findall(r"<small>(step \d)</small> ([\w ]+)", display[-1])
    assert told == [("step 1", "a dog"), ("step 2", "a red dog")]


def test_what_fits_follows_memory():
    table = views.what_fits({"little": 1 << 30, "much": 1 << 40}).splitlines()
    assert len(table) == 1 + len(views.JOBS) * len(views.AT_A_TIME)
    for row in table[1:]:
        assert re.search(r"GiB +does not fit +fits$", row), row


def test_what_fits_is_what_training_would_be_told():
    config = pg.model.variants.paligemma_3b(224)
    row = views.what_fits({}).splitlines()[1]
    optimizer = pg.train.make_optimizer("adamw", learning_rate=1e-4, total_steps=1)
    needed = pg.train.bytes_needed(
        type(config)(config.vision, config.language, "float16", "full"),
        optimizer,
        trainable="attention",
        batch_size=1,
        text_len=128,
        frozen_dtype="float16",
    )
    assert row.endswith(f"{needed / 2**30:.1f} GiB")
