r"""Matches names against regular expressions that are not trusted, in linear time.

    matching(r"(.*\.)?(q|v)_proj", ["model.layers.0.self_attn.q_proj"])         # [True]

Python's own engine backtracks: a short expression can keep it busy for years. RE2 cannot be made
to, and knows no lookarounds and references back. pyarrow brings it along.
"""

from collections.abc import Sequence

from paligemma_lib.runtime.visible_text import visible

_LONGEST = 1 << 16  # characters


def matching(pattern: str, names: Sequence[str]) -> list[bool]:
    """Returns for each name whether the expression matches the whole of it.

    Raises:
      ValueError: the expression is wrong, too long, or beyond RE2.
    """
    import pyarrow
    import pyarrow.compute

    shown = visible(pattern[:60])
    if len(pattern) > _LONGEST:
        raise ValueError(
            f"the regular expression {shown}... is longer than {_LONGEST:,} characters"
        )
    try:
        found = pyarrow.compute.match_substring_regex(
            pyarrow.array(names, pyarrow.string()), f"^(?:{pattern})$"
        )
    except (pyarrow.ArrowInvalid, UnicodeError) as error:
        told = visible(str(error))[:200]
        raise ValueError(f"the regular expression {shown!r} is not understood ({told})") from error
    result: list[bool] = found.to_pylist()
    return result
