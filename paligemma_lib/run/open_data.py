"""Opens the images and captions that the config of a run names.

opened = OpenedData(config.data, data_set="flickr8k_tfds", data_dir="", commits={})
opened.source("train")
"""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

from paligemma_lib.data.files import join
from paligemma_lib.data.outside import ANYWHERE, check_link
from paligemma_lib.data.sources import (
    Mixture,
    Source,
    from_tfds,
    is_path,
    open_source,
    splits_of,
)
from paligemma_lib.data.sources.data_path import split_path
from paligemma_lib.data.sources.hub_commits import pinned
from paligemma_lib.data.sources.split_lists import list_named
from paligemma_lib.data.sources.split_names import chosen_split, usual_split
from paligemma_lib.data.sources.table_source import TableSource, folder_of
from paligemma_lib.data.sources.tf_examples import features_of
from paligemma_lib.run.data_config import DataConfig
from paligemma_lib.run.dotted import is_dotted, load_dotted

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class OpenedData:
    """Data of a run; each data set is opened once, on first access.

    Attributes:
      config: names the data.
      data_set, data_dir: TFDS data set, if the data are one, and its folder; "" for the default.
      commits: commits of data sets of the Hub, see `hub_commits.commits_of`.
    """

    config: DataConfig
    data_set: str
    data_dir: str
    commits: Mapping[str, str]

    def source(self, split: str) -> Source:
        """Returns the source of a split, a key of SPLITS.

        Raises:
          ValueError, OSError: it cannot be opened.
        """
        data, name = self.config, getattr(self.config, split)
        if data.mixture and (split == "train" or not is_path(name)):
            parts = [part.source(split) for part in self._parts]
            for part, source in zip(data.mixture, parts, strict=True):
                if split == "train" and not len(source):
                    raise ValueError(f"data.mixture: {part.train} has no images to train on")
            return Mixture(
                tuple(parts),
                tuple(part.weight for part in data.mixture),
                tuple(part.prompt for part in data.mixture),
            )
        if data.form == "auto":
            return self._recognised(split)
        home = name if data.kind == "folder" else folder_of(name)
        within = ANYWHERE if data.allow_outside else (home,)
        if data.kind == "jsonl":
            images = data.images or folder_of(name)
            return TableSource("jsonl", name, images, columns=data.columns, within=within)
        if data.kind == "folder":
            images = data.images or join(name, "Images")
            table = join(name, "captions.txt")
            for path in (table, images):
                check_link(path, (*within, *filter(None, [data.images])))
            return TableSource("captions.txt", table, images, columns=data.columns, within=within)
        if is_dotted(data.kind):
            return load_dotted(data.kind, "data.kind")(name)
        features = features_of(data.columns)
        return from_tfds(self.data_set, name, data_dir=self.data_dir or None, **features)

    @functools.cached_property
    def _parts(self) -> list["OpenedData"]:
        """The parts of a mixture, each as the data of a run."""
        parts = []
        for part in self.config.mixture:
            alone = dataclasses.replace(
                self.config,
                mixture=(),
                train=part.train,
                images=part.images or self.config.images,
            )
            if alone.form != "auto":
                raise FileNotFoundError(f"data.mixture: {part.train} does not exist, expected data")
            parts.append(dataclasses.replace(self, config=alone))
        return parts

    @functools.cached_property
    def _own_splits(self) -> Mapping[str, Source]:
        """Splits of the data in `train`, which is a path; "" stands for all records.

        All records are those of the list that `train` names, or of the data's only split. A hash
        divides them.
        """
        data = self.config
        path, named = split_path(pinned(data.train, self.commits))
        found = splits_of(path, **self._how)
        if list_named(path, named):
            return {"": chosen_split(found, named, path)}
        if len(found) != 1 or "" in found:
            return found
        # Many data sets of the Hub have just train, or just test, and nothing to validate with.
        ((name, source),) = found.items()
        if named and usual_split(named) != usual_split(name):
            raise ValueError(f"{path} has no split {named!r}; it has {name}")
        _log.info("%s has the split %s alone: a hash of the names divides it", path, name)
        return {"": source}

    @property
    def _how(self) -> dict[str, Any]:
        data = self.config
        outside = data.allow_outside
        return {"images": data.images, "columns": data.columns, "allow_outside": outside}

    def _recognised(self, split: str) -> Source:
        """Returns a source of recognised form: a path, or a split of the data in `train`."""
        data, name = self.config, getattr(self.config, split)
        path, named = split_path(data.train)
        # Where validation and test are elsewhere, all of train is for training. Of a data set of
        # the Hub, a split that is named is then downloaded alone.
        alone = split == "train" and is_path(data.validation) and is_path(data.test)
        if alone or (split != "train" and is_path(name)):
            path = pinned(name, self.commits)
            return open_source(path, **self._how)
        if split == "train":
            divided = set(self._own_splits) == {""}
            return chosen_split(self._own_splits, "train" if divided else named or "train", path)
        # A recipe may name splits of another data set, as "train[:1200]".
        return chosen_split(self._own_splits, name if name in self._own_splits else split, path)
