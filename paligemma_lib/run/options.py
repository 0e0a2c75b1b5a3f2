"""Validates trees of plain values as configs, and reports all problems at once.

    config = parse(RunConfig, {"batch_size": 16}, "my.py")
    parse(RunConfig, {"bach_size": 0, "epochs": 0}, "my.py")
        # ConfigError: my.py has 2 problems:
        #   bach_size: unknown field; did you mean batch_size?
        #   epochs=0: expected greater than 0
    for each in options_of(RunConfig): print(each.name, each.default, each.meaning)

Pydantic checks types and bounds in strict mode: it accepts neither a text for a number nor True for
1.
"""

import dataclasses
import difflib
import functools
import json
import logging
import os
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
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STRICT = ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
)

# A tuple of texts; a single text is accepted as a tuple of one.
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(strict=False),
]

# A path or an address, in which ~ is expanded: a shell leaves it alone in --config.workdir=~/runs.
Place = Annotated[str, AfterValidator(os.path.expanduser)]


class ConfigError(ValueError):
    """Raised for an invalid config; `problems` has one line for each problem."""

    def __init__(self, problems: Sequence[str], source: str) -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        super().__init__(f"{source} has {count}:" + "".join(f"\n  {each}" for each in problems))


@dataclasses.dataclass(frozen=True)
class Option:
    """A field of a config, as help shows it.

    Attributes:
      name: dotted name, such as `optimizer.learning_rate`.
      default: the default value.
      meaning: the help text, which is the string below the field.
      expected: choices or bounds of the value; empty if there are none beside its type.
    """

    name: str
    default: Any
    meaning: str
    expected: str


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def config(kind: type[T]) -> type[T]:
    """Turns a class into a frozen dataclass that validates itself and raises ConfigError."""
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
    """Makes a config from plain JSON values; missing fields get their defaults.

    Args:
      kind: a class that the decorator `config` has made.
      values: nested mappings.
      source: name of the origin of the values, for error messages.

    Raises:
      ConfigError: fields are unknown, or values have wrong types or lie out of bounds. Its message
        lists every problem.
    """
    try:
        # In strict mode pydantic rejects a Python list where a tuple is declared. For JSON input,
        # which has no tuples, it accepts the list, and still rejects a text for a number.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=_no_json))
    except ValidationError as error:
        raise ConfigError(_problems(error, kind), source) from None


def options_of(kind: Any, prefix: str = "") -> Iterator[Option]:
    """Yields all fields of a config; fields of its groups have dotted names."""
    for name, field in kind.__pydantic_fields__.items():
        if hasattr(field.annotation, "__pydantic_fields__"):
            yield from options_of(field.annotation, f"{prefix}{name}.")
        else:
            default = field.default
            yield Option(f"{prefix}{name}", default, field.description or "", _expected(field))


def renamed(values: Mapping[str, Any], former: Mapping[str, str]) -> dict[str, Any]:
    """Returns a copy of a tree of values in which former names of fields are replaced.

    Where both names occur, the value of the former name wins: a config file that starts from all
    defaults has the present name anyway, while only its author can have set the former one.

    Args:
      values: nested mappings.
      former: former dotted name -> present dotted name.
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
    """Returns the message about an unknown field, with the field that was probably meant."""
    # First compare last parts, as users leave out the group: learning_rate is found as
    # optimizer.learning_rate. Then look for typos.
    found = [each for each in known if each.rpartition(".")[2] == name.rpartition(".")[2]]
    found = found or difflib.get_close_matches(name, known, 1, 0.5)
    meant = f"; did you mean {found[0]}?" if found else ""
    return f"{name}: unknown field{meant}"


def _no_json(value: Any) -> Any:
    """Replaces a value that JSON cannot represent by one that pydantic rejects.

    Without it `json.dumps` would raise, and the message would not name the field.
    """
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
    # A validator of a whole config checks several fields together, and names them in its message.
    if detail["type"] == "value_error" and not of_one:
        return f"{path}.{told}".lstrip(".")
    return f"{path}={detail['input']!r}: {told}"


def _path(loc: Sequence[str | int]) -> str:
    return "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in loc).lstrip(".")


def _near(loc: Sequence[str | int], kind: Any) -> list[str]:
    """Names of the fields that an unknown field could be a misspelling of.

    For a field of a list item, such as stages[0].trainable, these are the fields of the item.
    """
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
