"""Parses references to data sets of the Hugging Face Hub.

    reference = parse("hf://datasets/nlphuji/flickr30k@refs/convert/parquet")
    reference = parse("nlphuji/flickr30k:TEST")
    reference.repo, reference.revision, reference.path, reference.config

The syntax is `hf://datasets/OWNER/NAME[@REVISION][/PATH]`, as everywhere on the Hub, or
`OWNER/NAME[@REVISION]`. A configuration comes last, after a colon, which no name of one has.
"""

from __future__ import annotations

import dataclasses
import os
import re

from paligemma_lib.data.sources.file_names import is_image, is_packed, is_table, is_tfrecord
from paligemma_lib.hub.huggingface_refusals import check_installed

PARQUET_EXPORT = "refs/convert/parquet"  # the branch of the files that the Hub converts itself

_SCHEME, _DATASETS = "hf://", "hf://datasets/"
_SHORT = re.compile(r"(?P<owner>[\w-][\w.-]*)/(?P<name>[\w-][\w.-]*)(?P<rest>[@:][^#]+)?")


@dataclasses.dataclass(frozen=True)
class HubReference:
    """Place of data on the Hub.

    Attributes:
      repo: OWNER/NAME.
      revision: branch, tag or commit.
      path: file, folder or pattern in the repository; "" for the whole of it.
      config: name of a configuration; "" for the default one.
      is_short: whether it was written as a local path could be, without hf://.
    """

    repo: str
    revision: str
    path: str = ""
    config: str = ""
    is_short: bool = dataclasses.field(default=False, compare=False)

    @property
    def name(self) -> str:
        """Repository and revision, for messages and records."""
        return f"{self.repo}@{self.revision}"

    def __str__(self) -> str:
        from huggingface_hub import HfUri

        uri = HfUri("dataset", self.repo, self.revision, self.path).to_uri()
        return f"{uri}:{self.config}" if self.config else uri


def is_hub(path: str) -> bool:
    """Returns whether a path of data is on the Hub.

    OWNER/NAME is, if there is neither such a path nor a folder OWNER here, and the name does not
    end like a file of data: a misspelt local path should not be looked for elsewhere.
    """
    if path.startswith(_SCHEME):
        return True
    found = _SHORT.fullmatch(path)
    if found is None or os.path.exists(path) or os.path.isdir(found["owner"]):
        return False
    return not any(known(found["name"]) for known in (is_image, is_packed, is_table, is_tfrecord))


def parse(path: str) -> HubReference:
    """Parses a path for which `is_hub` is true.

    Raises:
      ValueError: it is malformed, or names no data set.
      ImportError: huggingface_hub is not installed.
    """
    check_installed(path)
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    usage = (
        "expected hf://datasets/OWNER/NAME[@REVISION][/PATH] or OWNER/NAME, perhaps with :CONFIG"
    )
    location = path if path.startswith(_SCHEME) else _DATASETS + path
    if not location.startswith(_DATASETS):
        raise ValueError(f"{path} is not a data set of the Hugging Face Hub: {usage}")
    body, _, config = location.removeprefix(_SCHEME).partition(":")
    try:
        found = parse_hf_uri(_SCHEME + body.rstrip("/"))
    except HfUriError as error:
        raise ValueError(f"{path}: {error.msg} {usage}") from error
    if {".", ".."} & {*found.path_in_repo.split("/"), *(found.revision or "").split("/")}:
        raise ValueError(f"{path} leads out of the repository: {usage}")
    if found.path_in_repo and config:
        raise ValueError(f"{path}: give a path in the repository, or a configuration, not both")
    revision = PARQUET_EXPORT if found.revision == "~parquet" else found.revision or "main"
    return HubReference(found.id, revision, found.path_in_repo, config, location != path)
