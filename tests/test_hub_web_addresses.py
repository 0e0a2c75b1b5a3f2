"""An address in place of a checkpoint: what to give instead."""

import pytest

from paligemma_lib import hub
from paligemma_lib.checkpoint import load_params, read_config
from paligemma_lib.cli import main
from paligemma_lib.model import variants

CASES = [
    ("https://huggingface.co/google/paligemma-3b-pt-224", "give google/paligemma-3b-pt-224"),
    ("https://hf.co/a/b/resolve/main/model.safetensors?download=true", "Hub: give a/b"),
    ("hf://google/paligemma2-3b-pt-224", "give google/paligemma2-3b-pt-224"),
    (
        "https://storage.googleapis.com/bucket/folder/a.npz?X-Sig=secret",
        "give gs://bucket/folder/a.npz",
    ),
    ("https://www.kaggle.com/models/google/paligemma", "give the model's handle"),
    ("http://user:secret@example.com/a.npz?token=secret", "curl -LO ADDRESS"),
    ("HTTPS://example.com/model", "curl -LO ADDRESS"),
]


@pytest.mark.parametrize(("name", "cure"), CASES)
def test_what_to_give_instead(name, cure, capsys):
    for ask in (hub.fetch, read_config, lambda name: load_params(name, variants.nano())):
        with pytest.raises(ValueError, match="is an address, expected a local file") as caught:
            ask(name)
        assert cure in str(caught.value) and "secret" not in str(caught.value)
    assert main(["show", name]) == 1
    assert cure in capsys.readouterr().err


def test_buckets_and_files_are_none():
    for name in ("gs://bucket/a.npz", "memory://a.npz", "http", "a/b", "./https:/x"):
        hub.check_no_address(name)
