"""What every config has in common: trees of plain values in, everything that is wrong at once out.

    config = parse(RunConfig, {"batch_size": 16}, "my.py")
    parse(RunConfig, {"bach_size": 0, "epochs": 0}, "my.py")
        # ConfigError: my.py has 2 problems:
        #   bach_size: there is no such field; did you mean batch_size?
        #   epochs=0: expected greater than 0
    for each in options_of(RunConfig): print(each.name, each.default, each.meaning)

Types and bounds are pydantic's, strictly: no text is taken for a number, no True for 1.
"""

import dataclasses
import difflib
import functools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import pydantic.dataclasses
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STRICT = ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
)

# Texts, of which one alone may stand for itself.
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(strict=False),
]


class ConfigError(ValueError):
    """A config that makes no sense; `problems` has a line for each thing that is wrong."""

    def __init__(self, problems: Sequence[str], source: str) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        super().__init__(f"{source} has {count}:" + "".join(f"\n  {each}" for each in problems))


@dataclasses.dataclass(frozen=True)
class Option:
    """A field of a config, for people: dotted name, default, meaning, what it may be."""

    name: str
    default: Any
    meaning: str
    expected: str


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def config(kind: type[T]) -> type[T]:
    """Makes a class a frozen dataclass that checks itself, and raises ConfigError."""
    made: Any = pydantic.dataclasses.dataclass(kind, frozen=True, kw_only=True, config=_STRICT)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **values: Any) -> None:
        try:
            checked(self, *args, **values)
        except ValidationError as error:
            raise ConfigError(_problems(error, made), made.__name__) from None

    made.__init__ = init
    return cast(type[T], made)


def parse(kind: type[T], values: Mapping[str, Any], source: str = "the config") -> T:
    """Makes a config of plain values, as JSON has them; a field that is not named has its default.

    Args:
      kind: a class that `config` has made.
      values: nested mappings.
      source: whence they come, for people.

    Raises:
      ConfigError: fields are unknown, or values are not what they should be; tells of all.
    """
    try:
        # By way of JSON, for which pydantic's strict mode takes a list for a tuple, and nothing
        # else for anything else.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=_no_json))
    except ValidationError as error:
        raise ConfigError(_problems(error, kind), source) from None


def options_of(kind: Any, prefix: str = "") -> Iterator[Option]:
    """All fields of a config, those of its groups with dotted names."""
    for name, field in kind.__pydantic_fields__.items():
        if hasattr(field.annotation, "__pydantic_fields__"):
            yield from options_of(field.annotation, f"{prefix}{name}.")
        else:
            default = field.default
            yield Option(f"{prefix}{name}", default, field.description or "", _expected(field))


def renamed(values: Mapping[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """A tree of values in which fields have the names of today.

    Where both names are there, the former one counts: somebody has set it on top of all defaults.

    Args:
      values: nested mappings.
      former: dotted names of before, and of today.
    """
    result = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    for before, now in former.items():
        group, _, old = before.rpartition(".")
        place = result.get(group) if group else result
        if isinstance(place, dict) and old in place:
            place[now.rpartition(".")[2]] = place.pop(old)
            _log.warning("%s is called %s now", before, now)
    return result


def unknown(name: str, known: Sequence[str]) -> str:
    """What to say of a field that is not there, with the one that was probably meant."""
    # A group may have been left out: learning_rate is optimizer.learning_rate.
    found = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
    found = found or difflib.get_close_matches(name, known, 1, 0.5)
    meant = f"; did you mean {found[0]}?" if found else ""
    return f"{name}: there is no such field{meant}"


def _no_json(value: Any) -> Any:
    """For what no field can be, so that its field is told."""
    return {type(value).__name__: repr(value)}


def _problems(error: ValidationError, kind: Any) -> list[str]:
    return [_problem(detail, kind) for detail in error.errors(include_url=False)]


def _problem(detail: Any, kind: Any) -> str:
    path = _path(detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        return unknown(path, _near(detail["loc"], kind))
    told = detail["msg"].removeprefix("Value error, ")
    told = re.sub("^(Input|String) should (be|have)", "expected", told)
    of_one = told.startswith("expected")
    if detail["type"] == "value_error" and not of_one:  # of fields together, which are named there
        return f"{path}.{told}".lstrip(".")
    return f"{path}={detail['input']!r}: {told}"


def _path(loc: Sequence[str | int]) -> str:
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in loc).lstrip(".")


def _near(loc: Sequence[str | int], kind: Any) -> list[str]:
    """What an unknown field could have been meant to be: in an item of a list, one of its own."""
    if not any(isinstance(each, int) for each in loc):
        return [each.name for each in options_of(kind)]
    for each in loc[:-1]:
        inner = kind.__pydantic_fields__[each].annotation if isinstance(each, str) else kind
        kind = get_args(inner)[0] if isinstance(each, int) else inner
    return [_path([*loc[:-1], name]) for name in kind.__pydantic_fields__]


def _expected(field: FieldInfo) -> str:
    for each in field.metadata:
        if hasattr(each, "expected"):
            return str(each.expected)
    if get_origin(field.annotation) is Literal:
        return ", ".join(each or "empty" for each in get_args(field.annotation))
    bounds = [
        f"{sign} {getattr(each, name):,}"
        for each in field.metadata
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if hasattr(each, name)
    ]
    return " and ".join(bounds)
