"""Puts a model, or an adapter, and its card on the Hugging Face Hub, in one commit.

url = push("runs/mine", "me/my-captioner", private=True)

What is pushed is a folder of safetensors that transformers loads; an `.npz` file is converted. The
tokenizer is there as `tokenizer.model` and as `tokenizer.json`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

from paligemma_lib import captioner, hub
from paligemma_lib.checkpoint.adapters.adapter_folder import (
    ADAPTER_MODEL,
    IN_WORKDIR,
    TOKENIZER,
    base_of,
    find_adapter,
)
from paligemma_lib.checkpoint.adapters.adapter_image_size import at_image_size
from paligemma_lib.checkpoint.adapters.adapter_reading import read_adapter
from paligemma_lib.checkpoint.adapters.base_revision import without_revision
from paligemma_lib.checkpoint.adapters.peft_settings import ADAPTER_CONFIG
from paligemma_lib.checkpoint.conversion import convert
from paligemma_lib.checkpoint.huggingface.config_json import CONFIG
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.checkpoint.huggingface.settings import image_files, tokenizer_files
from paligemma_lib.checkpoint.stored import open_reader, read_config
from paligemma_lib.hub import huggingface_models
from paligemma_lib.hub.huggingface_refusals import huggingface_refusals
from paligemma_lib.hub.huggingface_repos import HubRepo, api
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.run.model_card import model_card
from paligemma_lib.run.run_facts import Facts, facts_of, hub_name
from paligemma_lib.runtime.atomic import is_remote, path_of
from paligemma_lib.runtime.regular_files import read_bounded
from paligemma_lib.tokenizer import load
from paligemma_lib.tokenizer.fast_tokenizer import tokenizer_json

CARD = "README.md"
_WEIGHTS = r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
_MODEL = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|tokenizer_config"
    rf"|special_tokens_map|added_tokens)\.json|{_WEIGHTS}"
)
# What makes a repository a model or an adapter. Left from an earlier push, it would be loaded.
_LOADED = re.compile(
    rf"{_WEIGHTS}|config\.json|{re.escape(ADAPTER_CONFIG)}|{re.escape(ADAPTER_MODEL)}"
)
_MAX_BYTES = 1 << 20
_BASE = "base_model_name_or_path"
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def push(
    checkpoint: str | os.PathLike[str],
    name: str,
    *,
    private: bool = False,
    picture: Path | None = None,
) -> str:
    """Pushes a model to the Hub, and returns the URL of its page.

    Weights of an earlier push that are not part of this one are removed in the same commit, and so
    is the adapter that a model replaces, or the model that an adapter replaces. Other files stay.

    Args:
      checkpoint: as for `checkpoint.load_params`. The workdir of a run also gives its card.
      name: OWNER/NAME; the repository is made if it does not exist.
      private: whether the repository has to be private; one that is made is.
      picture: an image to show on the card.

    Raises:
      FileNotFoundError, ValueError: the checkpoint, its tokenizer or the picture is missing or
        damaged, `name` is no name, or `private` is set and the repository is public.
      PermissionError: there is no token, or it must not write there.
      ConnectionError: the Hub cannot be reached, or the upload broke off.
    """
    if not huggingface_models.is_name(name):
        raise ValueError(f"{name} is no name on the Hugging Face Hub: expected OWNER/NAME")
    if picture is not None and not (picture.is_file() and picture.suffix.lower() in _PICTURES):
        raise FileNotFoundError(f"{picture}: expected an image, {', '.join(_PICTURES)}")
    hub.check_no_address(os.fspath(checkpoint))
    workdir = path_of(os.path.expanduser(checkpoint))
    facts = facts_of(workdir) if workdir.is_dir() else Facts()
    with tempfile.TemporaryDirectory(prefix="paligemma-push-") as temporary:
        if is_remote(checkpoint):
            adapter = _remote_adapter(workdir, Path(temporary))
        else:
            adapter = find_adapter(checkpoint)
        base = base_of(adapter) if adapter else ""
        config = read_config(base or checkpoint)
        if adapter:
            files = _adapter_files(adapter, base, config, Path(temporary))
            config = at_image_size(config, [adapter])  # for the card
        else:
            files = _files(os.fspath(checkpoint), config, Path(temporary))
        shown = f"samples{picture.suffix.lower()}" if picture else ""
        if picture is not None:
            files[shown] = picture
        card = Path(temporary) / CARD
        card.write_text(model_card(name, config, facts, shown, hub_name(base)), "utf-8")
        files[CARD] = card
        return _uploaded(name, files, private)


def _remote_adapter(folder: Path, temporary: Path) -> Path | None:
    """Returns a local copy of an adapter on gs://, as `find_adapter` finds local ones."""
    if not folder.is_dir() or hub.exported(folder) != folder:
        return None
    places = [
        place for place in (folder, folder / IN_WORKDIR) if (place / ADAPTER_CONFIG).is_file()
    ]
    for place in places[:1]:
        (temporary / IN_WORKDIR).mkdir()
        for name in (ADAPTER_CONFIG, ADAPTER_MODEL, TOKENIZER):
            if name != TOKENIZER or (place / name).is_file():  # an adapter may have none
                (temporary / IN_WORKDIR / name).write_bytes((place / name).read_bytes())
    return temporary / IN_WORKDIR if places else None


def _adapter_files(
    adapter: Path, base: str, config: PaliGemmaConfig, temporary: Path
) -> dict[str, Path]:
    """Returns name -> path of the files of an adapter, whose settings name the base on the Hub.

    The processor is that of the image size that the adapter is for.
    """
    read_adapter(adapter, config)  # what is damaged should not be pushed
    if not hub_name(base):
        raise ValueError(
            f"{adapter} is of {base}, which others do not have: push that model first, and name it "
            f"as base_model_name_or_path in {ADAPTER_CONFIG}; or merge the adapter, and push that"
        )
    fields = json_object(read_bounded(adapter / ADAPTER_CONFIG, _MAX_BYTES))
    settings = temporary / ADAPTER_CONFIG
    name, revision = without_revision(hub_name(base))
    named = {_BASE: name, "revision": revision}
    settings.write_text(json.dumps(fields | named, indent=2), "utf-8")
    config = at_image_size(config, [adapter])
    processor = image_files(config) | tokenizer_files(config)
    for each, content in processor.items():
        (temporary / each).write_text(json.dumps(content, indent=2), "utf-8")
    return {
        ADAPTER_CONFIG: settings,
        ADAPTER_MODEL: adapter / ADAPTER_MODEL,
        **{each: temporary / each for each in processor},
        **_tokenizer(captioner.tokenizer_of(base, adapter), temporary),
    }


def _files(checkpoint: str, config: PaliGemmaConfig, temporary: Path) -> dict[str, Path]:
    """Returns name -> path of the files of a model, some of them made in the temporary folder."""
    with open_reader(checkpoint, config) as file:
        file.verify()  # what is damaged should not be pushed
    place = Path(checkpoint) if is_remote(checkpoint) else hub.fetch(checkpoint)
    tokenizer = _tokenizer(captioner.tokenizer_of(checkpoint), temporary)
    if not (place.is_dir() and (place / CONFIG).is_file()):
        convert(checkpoint, temporary / "model", tokenizer=tokenizer[TOKENIZER])
        place = temporary / "model"
    # A folder may hold other files, which are nobody's business.
    names = [path.name for path in place.iterdir() if _MODEL.fullmatch(path.name)]
    return {name: place / name for name in names} | tokenizer


def _tokenizer(path: Path, temporary: Path) -> dict[str, Path]:
    """Returns name -> path of both forms of a tokenizer, made in the temporary folder."""
    model = load(path).serialized()
    own, fast = temporary / TOKENIZER, temporary / "tokenizer.json"
    own.write_bytes(model)
    fast.write_text(json.dumps(tokenizer_json(model)), "utf-8")
    return {own.name: own, fast.name: fast}


def _uploaded(name: str, files: dict[str, Path], private: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo = HubRepo("model", name, "main")
    with huggingface_refusals(name, repo.page, writes=True):
        api().create_repo(name, private=private or None, exist_ok=True)
        # The Hub ignores `private` where the repository exists.
        is_public = private and not api().model_info(name).private
    if is_public:
        raise ValueError(
            f"{name} is public on the Hugging Face Hub, expected private: nothing was pushed. Make "
            f"it private at {repo.page}/settings, push to another name, or leave out private"
        )
    with huggingface_refusals(name, repo.page, writes=True):
        there = api().list_repo_files(name)
        stale = [each for each in there if _LOADED.fullmatch(each) and each not in files]
        api().create_commit(
            name,
            [
                *(CommitOperationAdd(each, path) for each, path in sorted(files.items())),
                *(CommitOperationDelete(each) for each in stale),
            ],
            commit_message="Push a model with paligemma_lib",
        )
    return repo.page
