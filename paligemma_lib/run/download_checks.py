"""Checks before a run starts whether its checkpoint may be downloaded, without downloading it.

    print(kaggle(setup))                  # licence accepted, 6.0 GiB to download

They are among the checks of `checks`, with the same errors.
"""

from paligemma_lib import hub
from paligemma_lib.hub import huggingface_models, kaggle_access
from paligemma_lib.run.setup import Setup


def kaggle(setup: Setup) -> str:
    """Checks Kaggle's credentials and licence, if the checkpoint has to be downloaded."""
    name = setup.config.model.checkpoint
    if not hub.is_kaggle(name):
        return "not needed"
    if setup.local_checkpoint is not None:
        return f"not needed, already downloaded: {setup.local_checkpoint}"
    return kaggle_access.access(name)


def hugging_face(setup: Setup) -> str:
    """Checks whether a model of the Hugging Face Hub may be read, if it has to be downloaded."""
    name = setup.config.model.checkpoint
    if not hub.is_hub_model(name):
        return "not needed"
    if setup.local_checkpoint is not None:
        return f"not needed, already downloaded: {setup.local_checkpoint}"
    return huggingface_models.access(name)
