"""Models of the Hugging Face Hub, from a server in its place that speaks to the real client."""

import pytest
from hub_server import TOKEN, from_folder
from huggingface_hub import constants, hf_hub_download

import paligemma_lib as pg
from paligemma_lib import hub as library
from paligemma_lib.checkpoint import huggingface
from paligemma_lib.hub import huggingface_models
from paligemma_lib.hub.fetching import NANO
from paligemma_lib.run import ModelConfig, RunConfig, Setup, download_checks

NAME = "somebody/captioner"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """nano, as transformers has models."""
    model = pg.load("nano")
    place = tmp_path_factory.mktemp("exported") / "captioner"
    return huggingface.export(
        model.params, model.config, place, tokenizer=model.tokenizer.serialized()
    )


@pytest.fixture
def captioner(hub, folder):
    repo = hub.add(NAME)
    repo.commit(from_folder(folder) | {"README.md": b"# Hi", "modeling.py": b"raise SystemExit"})
    return repo


def asked(hub) -> set[str]:
    """Names of the files that were asked for."""
    return {path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path}


def naming(checkpoint: str) -> Setup:
    return Setup(RunConfig(model=ModelConfig(checkpoint=checkpoint)))


def test_a_model_is_loaded_by_its_name_and_downloaded_once(hub, captioner):
    found = pg.load(NAME)
    assert found.config == pg.load("nano").config
    assert found.tokenizer.serialized() == pg.load("nano").tokenizer.serialized()
    assert {"model.safetensors", "config.json", "tokenizer.model"} <= asked(hub)
    assert not {"README.md", "modeling.py"} & asked(hub)
    hub.requests.clear()
    pg.load(NAME)
    assert not asked(hub)


def test_a_revision_is_another_model(hub, captioner):
    old = captioner.refs["main"]
    captioner.commit({"config.json": b"{}"})
    assert library.fetch(f"{NAME}@{old}").name == old
    assert library.fetch(NAME).name == captioner.refs["main"]
    with pytest.raises(FileNotFoundError, match="captioner@v9: no such revision"):
        library.fetch(f"{NAME}@v9")


def test_one_npz_file_is_a_model_too(hub):
    repo = hub.add("somebody/arrays")
    files = {"nano.npz": NANO.read_bytes(), "README.md": b"# Hi"}
    repo.commit(files | {"tokenizer.model": (NANO.parent / "tokenizer.model").read_bytes()})
    assert pg.load("somebody/arrays").config == pg.load("nano").config
    repo.commit({"other.npz": b""})
    with pytest.raises(FileNotFoundError, match="no .safetensors and 2 .npz files at its top"):
        library.fetch("somebody/arrays")


def test_a_gated_model_says_what_to_click_and_where_the_token_goes(hub, captioner, monkeypatch):
    captioner.gated = True
    told = f"gated .* accept its conditions at {hub.url}/{NAME}.* `hf auth login`, or set HF_TOKEN"
    with pytest.raises(PermissionError, match=told):
        library.fetch(NAME)
    with pytest.raises(PermissionError, match=told):
        download_checks.hugging_face(naming(NAME))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert download_checks.hugging_face(naming(NAME)).startswith("may be read, ")
    assert library.fetch(NAME).is_dir()
    assert not any(path.startswith("/cdn/") for path in hub.authorized)


def test_offline_the_cache_is_enough(hub, captioner, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set, and the cache .* not hold"):
        library.fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = library.fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert library.fetch(NAME) == folder
    assert hub.requests == []


def test_offline_a_model_is_found_that_another_program_has_downloaded(hub, captioner, monkeypatch):
    paths = [hf_hub_download(NAME, "config.json")]  # as transformers does
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set, and the cache .* not hold"):
        library.fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    paths += [hf_hub_download(NAME, file) for file in ("model.safetensors", "tokenizer.model")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert {str(each) for each in library.fetch(NAME).iterdir()} == {*paths}
    assert library.fetch_adapter(NAME) is None
    assert naming(NAME).local_checkpoint == str(library.fetch(NAME))
    assert hub.requests == []


def test_a_run_knows_a_model_before_it_is_downloaded(hub, captioner):
    setup = naming(NAME)
    assert setup.local_checkpoint is None
    assert setup.model.language == pg.load("nano").config.language
    assert asked(hub) == {"config.json"}
    folder = library.fetch(NAME)
    assert naming(NAME).local_checkpoint == str(folder)
    assert "already downloaded" in download_checks.hugging_face(naming(NAME))
    assert download_checks.hugging_face(naming("nano")) == "not needed"


def test_local_paths_and_files_of_weights_are_no_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/mine", "a/b.npz", "a/b.safetensors", "a/b/c", "a", "../a/b", "a/b@", "/a/b"):
        assert not huggingface_models.is_hub_model(name), name
    for name in ("a/b", "google/paligemma-3b-pt-224", "a/b.v1@refs/pr/1"):
        assert huggingface_models.is_hub_model(name), name
