"""Imports a user's own objects, which a config names as package.module:name.

sampler = load_dotted("my_samplers:NoRepeatedTrigrams", "sampler")()
"""

import functools
import importlib
import os
import sys
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from paligemma_lib.run.options import ConfigError


class NameOrDotted:
    """Validates a text field: one of several names, or a path package.module:name.

    It is used as metadata of the type: `Annotated[str, NameOrDotted("tfds", "folder")]`.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.expected = f"{', '.join(names)}, or package.module:name"

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(kind))

    def _check(self, given: str) -> str:
        if given not in self.names and not is_dotted(given):
            raise ValueError(f"expected {self.expected}")
        return given


def is_dotted(name: str) -> bool:
    """Whether a text is a path package.module:name."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def load_dotted(path: str, field: str) -> Any:
    """Imports the object that `path` names.

    The working directory is searched for modules too, after all other places.

    Raises:
      ConfigError: the module or name does not exist, or its import fails. The message names the
        field.
    """
    module, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:  # a user's module may raise anything
        told = f"{field}={path}: {type(error).__name__}: {error}"
        raise ConfigError([told], "the config") from error
