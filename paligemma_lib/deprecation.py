"""Names that changed and keep working for one release, with a DeprecationWarning.

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
    """The `__getattr__` of a module, of which `now` gives names by what they were called before.

    `otherwise` is asked for all other names: the `__getattr__` that a lazy package has already.
    """

    def getattr_(name: str) -> Any:
        if name not in now:
            if otherwise is not None:
                return otherwise(name)
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn(f"{module}.{name}", now[name])
        return getattr(sys.modules[module], now[name])

    return getattr_


def former_arguments(**now: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Has a function take keyword arguments also by the names that they had before."""

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
    """Tells the caller of the caller what a name is now."""
    warnings.warn(f"{before} is called {now} now", DeprecationWarning, stacklevel=3)
