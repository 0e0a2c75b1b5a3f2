import subprocess
import sys

import pytest


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
def test_the_data_side_works_without_jax(tmp_path):
    """TensorFlow itself imports JAX when it finds it, so it must not be found."""
    (tmp_path / "Images").mkdir()
    code = f"""
import sys
sys.modules["jax"] = None
import io
import paligemma_lib as pg
from PIL import Image

for name in ("a.png", "b.png"):
    Image.new("RGB", (8, 6)).save(f"{tmp_path}/Images/{{name}}")
with open("{tmp_path}/captions.txt", "w") as file:
    file.write("image,caption\\na.png,A dog .\\nb.png,A cat .\\n")
tokenizer = pg.testing.tiny_tokenizer()
source = pg.data.from_folder("{tmp_path}")
arguments = dict(image_size=8, text_len=40, batch_size=2)
pg.batch.check(next(pg.data.train_batches(source, tokenizer, seed=0, **arguments)), newline=4)
(batch,) = pg.data.eval_batches(source, tokenizer, **arguments)
print(batch["image_id"].tolist())
"""
    assert run(code) == "['a.png', 'b.png']\n"


@pytest.mark.parametrize(
    "module", ["batch", "tokenizer", "testing", "data", "data.text", "data.order"]
)
def test_what_the_model_side_may_import_needs_neither_tensorflow_nor_jax(module):
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["jax"] = None
import paligemma_lib.{module}
"""
    run(code)


def test_the_names_of_the_data_side_are_all_there():
    from paligemma_lib import data

    assert all(callable(getattr(data, name)) for name in data.__all__)
    with pytest.raises(AttributeError, match="No paligemma_lib.data attribute from_csv"):
        _ = data.from_csv
