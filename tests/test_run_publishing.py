"""Models pushed to the Hub: a server in its place that speaks to the real client keeps them."""

import json

import pytest
from adapter_cases import random_adapters
from hub_server import TOKEN
from huggingface_hub import ModelCard
from PIL import Image

import paligemma_lib as pg
from paligemma_lib.checkpoint.adapters import write_adapter
from paligemma_lib.checkpoint.adapters.adapter_folder import find_adapter
from paligemma_lib.cli import main
from paligemma_lib.hub.fetching import NANO
from paligemma_lib.run import publishing
from paligemma_lib.run.publishing import push
from paligemma_lib.testing import tiny_tokenizer

NAME = "somebody/captioner"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)


@pytest.fixture
def signed_in(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def files_of(hub) -> dict[str, bytes]:
    repo = hub.repos[NAME]
    return repo.commits[repo.refs["main"]]


def test_what_is_pushed_is_loaded_again(signed_in):
    assert push("nano", NAME) == f"{signed_in.url}/{NAME}"
    files = files_of(signed_in)
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"} <= {*files}
    assert files["tokenizer.model"] == (NANO.parent / "tokenizer.model").read_bytes()
    assert json.loads(files["tokenizer.json"])["model"]["type"] == "BPE"
    found = pg.load(NAME)
    image = Image.new("RGB", (40, 30), "#3080d0")
    assert found.caption(image).text == pg.load("nano").caption(image).text
    assert len(signed_in.repos[NAME].commits) == 2  # that of its creation, and one more


def test_weights_of_an_earlier_push_are_removed_in_the_same_commit(signed_in):
    push("nano", NAME)
    stale = {"model-00001-of-00002.safetensors", "model.safetensors.index.json"}
    mine = {"notes.txt", "onnx/x.bin", "step-500/model.safetensors", "table.npz", "vae.safetensors"}
    signed_in.repos[NAME].commit(dict.fromkeys({*stale, *mine}, b"1"))
    before = len(signed_in.repos[NAME].commits)
    push("nano", NAME)
    files = files_of(signed_in)
    assert not stale & {*files} and mine <= {*files}
    assert len(signed_in.repos[NAME].commits) == before + 1


def test_a_public_repository_is_not_pushed_to_as_private(signed_in):
    push("nano", NAME)
    with pytest.raises(
        ValueError, match=f"{NAME} is public .* nothing was pushed. Make it private"
    ):
        push("nano", NAME, private=True)
    assert len(signed_in.repos[NAME].commits) == 2  # as before
    signed_in.repos[NAME].private = True
    push("nano", NAME, private=True)
    assert len(signed_in.repos[NAME].commits) == 3


def test_a_folder_keeps_to_itself_what_is_no_part_of_the_model(signed_in, tmp_path):
    model = pg.load("nano")
    folder = pg.checkpoint.huggingface.export(
        model.params, model.config, tmp_path / "x", tokenizer=model.tokenizer.serialized()
    )
    (folder / "credentials.json").write_text("{}")
    (folder / "optimizer.safetensors").write_bytes(b"")
    push(folder, NAME)
    assert not {"credentials.json", "optimizer.safetensors"} & {*files_of(signed_in)}


@pytest.fixture
def adapter(tmp_path):
    """An adapter of nano, from the base "nano", for images of 192 pixels."""
    config = pg.model.variants.nano(192)
    arrays = random_adapters(config, ("llm/q_proj",), rank=2)
    return write_adapter(tmp_path / "adapter", arrays, base="nano", config=config)


@pytest.fixture
def published(signed_in, adapter):
    """The adapter, whose base is on the Hub."""
    push("nano", "somebody/base")
    fields = json.loads((adapter / "adapter_config.json").read_text())
    fields["base_model_name_or_path"] = "somebody/base@main"
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    return adapter


def test_a_repository_changes_from_a_model_to_an_adapter_and_back(signed_in, published):
    push("nano", NAME)
    push(published, NAME)
    assert {*ADAPTER_FILES} <= {*files_of(signed_in)}
    assert not {"config.json", "model.safetensors"} & {*files_of(signed_in)}
    assert find_adapter(NAME) is not None
    push("nano", NAME)
    assert not {*ADAPTER_FILES} & {*files_of(signed_in)}
    assert find_adapter(NAME) is None
    assert len(signed_in.repos[NAME].commits) == 4  # that of its creation, and one for each push


def test_an_adapter_is_pushed_under_the_name_of_its_base(signed_in, published):
    first = signed_in.repos["somebody/base"].refs["main"]
    push(published, NAME)
    files = files_of(signed_in)
    assert {*files} == {".gitattributes", "README.md", *ADAPTER_FILES, *PROCESSOR_FILES}
    processor = json.loads(files["preprocessor_config.json"])
    assert processor["size"] == {"height": 192, "width": 192}  # of the adapter, not of its base
    settings = json.loads(files["adapter_config.json"])
    assert settings["base_model_name_or_path"] == "somebody/base"
    assert settings["revision"] == "main"
    found = find_adapter(NAME)  # from the Hub
    assert {path.name for path in found.iterdir()} == {*ADAPTER_FILES, *PROCESSOR_FILES}
    assert find_adapter("somebody/base") is None
    signed_in.repos["somebody/base"].commit({"config.json": b"{}"})  # a newer base
    with pytest.raises(ValueError, match="somebody/base@main"):
        pg.load(NAME)
    fields = {**settings, "revision": first}
    signed_in.repos[NAME].commit({"adapter_config.json": json.dumps(fields).encode()})
    # Of the base that it was made for.
    assert pg.load(NAME).config.vision == pg.model.variants.nano(192).vision
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.library_name) == ("somebody/base", "peft")
    assert f'PeftModel.from_pretrained(model, "{NAME}")' in card.text
    assert "for images of 192 x 192 pixels" in card.text


def test_an_adapter_brings_the_tokenizer_of_its_run(signed_in, published):
    """It need not be the base's: the run may have been told another one."""
    own = tiny_tokenizer().serialized()
    (published / "tokenizer.model").write_bytes(own)
    push(published, NAME)
    assert files_of(signed_in)["tokenizer.model"] == own


@pytest.mark.parametrize("place", ["gs://bucket/run", "gs://bucket/run/adapter"])
def test_an_adapter_is_pushed_from_a_bucket(signed_in, published, monkeypatch, place):
    outcome = {"scores": {"CIDEr": {"value": 87.4}}}
    (published.parent / "scores.json").write_text(json.dumps(outcome))
    there = {"gs://bucket/run": published.parent, "gs://bucket/run/adapter": published}
    monkeypatch.setattr(publishing, "path_of", lambda name: there[name])
    push(place, NAME)
    files = files_of(signed_in)
    written = (published / "adapter_model.safetensors").read_bytes()
    assert files["adapter_model.safetensors"] == written
    assert (b"87.4" in files["README.md"]) == (place == "gs://bucket/run")


def test_an_adapter_of_what_nobody_else_has_is_not_pushed(signed_in, adapter):
    with pytest.raises(ValueError, match="is of nano, which others do not have"):
        push(adapter, NAME)
    assert NAME not in signed_in.repos


def test_the_command_shows_a_picture_where_one_is_given(signed_in, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    words = ["push", "nano", NAME, "--private", "--picture", str(tmp_path / "sheet.png")]
    assert main(words) == 0
    assert capsys.readouterr().out == f"pushed to {signed_in.url}/{NAME}\n"
    files = files_of(signed_in)
    assert signed_in.repos[NAME].private
    assert files["samples.png"] == (tmp_path / "sheet.png").read_bytes()
    assert "](samples.png)" in files["README.md"].decode()
    assert ModelCard(files["README.md"].decode()).data.license == "apache-2.0"


def test_without_a_token_it_is_told_where_to_get_one(hub, capsys):
    assert main(["push", "nano", NAME]) == 1
    told = capsys.readouterr().err
    assert "hf auth login" in told and "HF_TOKEN" in told
    assert NAME not in hub.repos


def test_a_token_is_never_printed(signed_in, capsys):
    signed_in.status = 500
    assert main(["push", "nano", NAME]) == 1
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err


@pytest.mark.parametrize(
    ("name", "picture", "told"),
    [
        ("captioner", None, "captioner is no name on the Hugging Face Hub: expected OWNER/NAME"),
        ("a/b@v1", None, "a/b@v1 is no name"),
        (NAME, "none.png", "none.png: expected an image"),
    ],
)
def test_what_is_asked_wrongly_is_told_before_anything_is_sent(signed_in, name, picture, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        push("nano", name, picture=picture and pg.runtime.atomic.path_of(picture))
    assert signed_in.requests == []
