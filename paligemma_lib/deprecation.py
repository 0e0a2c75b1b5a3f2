"""Keeps renamed functions and arguments working for one release, with a DeprecationWarning.

__getattr__ = former_names(__name__, relaid="resharded")        # at the end of a module

@former_arguments(mirror="horizontal_flip")
def train_batches(source, *, horizontal_flip=False): ...
"""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def former_names(
    module: str, otherwise: Callable[[str], Any] | None = None, /, **now: str
) -> Callable[[str], Any]:
    """Returns a `__getattr__` for a module that also finds attributes by their former names.

    Args:
      module: name of the module.
      otherwise: looks up all other names, such as the `__getattr__` that a lazily imported package
        already has. None raises AttributeError for them.
      now: present name of each attribute, by its former name.
    """

    def getattr_(name: str) -> Any:
        if name not in now:
            if otherwise is not None:
                return otherwise(name)
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        # Python calls a module's `__getattr__` only for names that the module does not define.
        warn(f"{module}.{name}", now[name])
        return getattr(sys.modules[module], now[name])

    return getattr_


def former_arguments(**now: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Returns a decorator for a function that also accepts former names of keyword arguments.

    `now` gives the present name of each argument, by its former name.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            for name in now.keys() & kwargs.keys():
                warn(f"{function.__name__}({name}=)", now[name])
                kwargs[now[name]] = kwargs.pop(name)
            return function(*args, **kwargs)

        return call

    return decorate


def warn(before: str, now: str) -> None:
    """Warns that a name has changed; the warning points at the code that used the former name."""
    # Level 1 is this line, 2 the wrapper that called `warn`, 3 the code that used the name.
    warnings.warn(f"{before} was renamed to {now}", DeprecationWarning, stacklevel=3)
