"""Reads adapter_config.json of PEFT: what an adapter is like, and what about it is not understood.

    settings = read_settings(Path("birds"))
    settings.base, settings.rank, settings.dora
    settings.ranks(modules)                                # module -> its rank

The file is untrusted. A field that is not known here and not off is refused, so that an adapter is
never computed differently than by PEFT. Source: peft 0.21, `tuners/lora/config.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from paligemma_lib.checkpoint.adapters.base_revision import with_revision
from paligemma_lib.checkpoint.adapters.re2_patterns import matching
from paligemma_lib.checkpoint.huggingface.json_text import json_object
from paligemma_lib.checkpoint.matching import listed
from paligemma_lib.runtime.bounds import real, shown, whole
from paligemma_lib.runtime.regular_files import read_bounded

ADAPTER_CONFIG = "adapter_config.json"

V = TypeVar("V")

_MAX_BYTES = 1 << 20
_MAX_RANK = 1 << 16
_MAX_ALPHA = 1e9
_MAX_ITEMS = 4096  # modules, layers or patterns that a field lists

# Fields that change nothing in the product of a trained adapter.
_NEUTRAL = {
    "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out",
    "inference_mode", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_core",
    "peft_version", "qalora_group_size", "runtime_config", "task_type",
}  # fmt: skip
_USED = {
    "alpha_pattern", "base_model_name_or_path", "exclude_modules", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "peft_type", "r", "rank_pattern",
    "revision", "target_modules", "use_dora", "use_rslora",
}  # fmt: skip
_OFF: tuple[Any, ...] = (None, False, "", "none", [], {})

# How matrices began; these leave the base model as it was.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "default")
_MERGE = (
    "Merge it into its base model with peft: PeftModel.from_pretrained(base, ADAPTER)"
    ".merge_and_unload().save_pretrained(FOLDER), and give FOLDER"
)
_CONVERT = (
    "Save it with peft's save_pretrained(FOLDER, path_initial_model_for_weight_conversion=...), "
    "which makes it an adapter of the unchanged base; or save the changed base beside it, write "
    "true into the field, and give that base"
)


@dataclasses.dataclass(frozen=True)
class PeftSettings:
    """What adapter_config.json says.

    Attributes:
      base: the base model, as it was named there, with @REVISION if it has one; "" if it was not.
      rank, alpha: of all modules but those that a pattern gives other ones.
      rslora, dora: whether alpha is divided by the square root of the rank; whether it is DoRA.
      rank_pattern, alpha_pattern: end of a module's name, as a regular expression -> its own.
      targets: regular expression for whole names, or ends of names.
      excluded: the same for modules that are left out.
      layers: numbers of layers that are adapted; None: all.
      layers_pattern: names before the number of a layer; none: any name.
    """

    base: str
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]

    def ranks(self, modules: Sequence[str]) -> dict[str, int]:
        """Returns the rank of each module."""
        return _by_pattern(self.rank_pattern, self.rank, modules)

    def alphas(self, modules: Sequence[str]) -> dict[str, float]:
        """Returns the alpha of each module."""
        return _by_pattern(self.alpha_pattern, self.alpha, modules)

    def targeted(self, modules: Sequence[str]) -> set[str] | None:
        """Returns the modules that are adapted; None if an expression for them is beyond RE2."""
        everything = self.targets == "all-linear"
        try:
            chosen = set(modules) if everything else _chosen(self.targets, modules)
            chosen -= _chosen(self.excluded, modules)
            if self.layers is not None and not isinstance(self.targets, str):
                chosen &= self._in_layers(modules)
        except ValueError:
            return None
        return chosen

    def _in_layers(self, modules: Sequence[str]) -> set[str]:
        numbers = "|".join(map(str, self.layers or ()))
        before = self.layers_pattern or (r"[^.]*",)
        found: set[str] = set()
        for each in before:
            # The first number in a name is that of the layer: none may stand before it.
            pattern = rf"([^.\d]\w*\.)*({each})\.({numbers})\..*"
            found |= {m for m, yes in zip(modules, matching(pattern, modules), strict=True) if yes}
        return found


def read_settings(folder: Path) -> PeftSettings:
    """Reads a folder's adapter_config.json.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is no adapter of LoRA, or has something that is not understood; the message
        lists all of that.
    """
    path = folder / ADAPTER_CONFIG
    try:
        fields = json_object(read_bounded(path, _MAX_BYTES), unique=True)
        problems: list[str] = []
        settings = _settings(fields, problems)
    except ValueError as error:
        raise ValueError(f"{path} does not describe an adapter: {error}") from error
    if problems:
        lines = "\n".join(f"  {each}" for each in problems)
        raise ValueError(f"{path} describes an adapter that is not read:\n{lines}\n  {_MERGE}")
    return settings


def _settings(fields: Mapping[str, Any], problems: list[str]) -> PeftSettings:
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"peft_type is {shown(kind)}, expected 'LORA' (with use_dora for DoRA)")
    for name, value in fields.items():
        if name not in _USED | _NEUTRAL and not _is_off(value):
            problems.append(f"{listed([name])} is {shown(value)}, which is not understood")
    _check_start(fields.get("init_lora_weights", True), problems)
    layers = fields.get("layers_to_transform")
    return PeftSettings(
        base=with_revision(_text(fields, "base_model_name_or_path"), _text(fields, "revision")),
        rank=whole("r", fields.get("r", 8), 1, _MAX_RANK),
        alpha=_alpha("lora_alpha", fields.get("lora_alpha", 8)),
        rslora=_flag(fields, "use_rslora"),
        dora=_flag(fields, "use_dora"),
        rank_pattern={
            key: whole(f"rank_pattern[{shown(key)}]", value, 1, _MAX_RANK)
            for key, value in _mapping(fields, "rank_pattern").items()
        },
        alpha_pattern={
            key: _alpha(f"alpha_pattern[{shown(key)}]", value)
            for key, value in _mapping(fields, "alpha_pattern").items()
        },
        targets=_modules(fields, "target_modules"),
        excluded=_modules(fields, "exclude_modules"),
        layers=None
        if layers in (None, [])
        else tuple(
            whole("layers_to_transform", each, 0, 1 << 16)
            for each in (_bounded(layers) if isinstance(layers, list) else [layers])
        ),
        layers_pattern=_tuple(_modules(fields, "layers_pattern")),
    )


def _check_start(start: Any, problems: list[str]) -> None:
    if isinstance(start, bool | None):
        return
    if not isinstance(start, str) or start.lower() not in _PLAIN_STARTS:
        problems.append(
            f"init_lora_weights is {shown(start)}, which changes the base model, or is not known. "
            f"{_CONVERT}"
        )


def _by_pattern(patterns: Mapping[str, V], default: V, modules: Sequence[str]) -> dict[str, V]:
    """Returns each module's value: that of the first pattern for the end of its name, as PEFT."""
    values = dict.fromkeys(modules, default)
    for pattern, value in reversed([*patterns.items()]):
        for module, yes in zip(modules, matching(rf"(.*\.)?({pattern})", modules), strict=True):
            if yes:
                values[module] = value
    return values


def _chosen(modules: str | tuple[str, ...], names: Sequence[str]) -> set[str]:
    if isinstance(modules, str):
        found = matching(modules, names) if modules else [False] * len(names)
        return {name for name, yes in zip(names, found, strict=True) if yes}
    ends = tuple(f".{each}" for each in modules)
    return {name for name in names if f".{name}".endswith(ends)}


def _alpha(what: str, value: Any) -> float:
    return real(what, value, least=-_MAX_ALPHA, most=_MAX_ALPHA)


def _is_off(value: Any) -> bool:
    return any(value == off and type(value) is type(off) for off in _OFF)


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {shown(value)}, expected true or false")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name) or ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {shown(value)}, expected a name or a path")
    return value


def _mapping(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name) or {}
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise ValueError(f"{name} is {shown(value)}, expected names with their values")
    return value


def _modules(fields: Mapping[str, Any], name: str) -> str | tuple[str, ...]:
    value = fields.get(name) or ()
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} is {shown(value)}, expected a list of names, or an expression")
    return tuple(_bounded(value))


def _tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _bounded(items: Sequence[V]) -> Sequence[V]:
    if len(items) > _MAX_ITEMS:
        raise ValueError(f"{len(items):,} items in a list, expected at most {_MAX_ITEMS:,}")
    return items
