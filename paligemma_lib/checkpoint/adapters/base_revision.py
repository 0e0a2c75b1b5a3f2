"""Joins and splits the name of an adapter's base model, which PEFT keeps in two fields.

with_revision("google/paligemma-3b-pt-224", "v1")       # "google/paligemma-3b-pt-224@v1"
without_revision("google/paligemma-3b-pt-224@v1")       # ("google/paligemma-3b-pt-224", "v1")

Only models of the Hugging Face Hub have revisions; other names stay as they are.
"""

from paligemma_lib import hub


def with_revision(base: str, revision: str) -> str:
    """Returns the name by which `hub.fetch` finds a base model; `revision` may be ""."""
    has_two = revision and "@" not in base and hub.is_hub_model(base)
    return f"{base}@{revision}" if has_two else base


def without_revision(base: str) -> tuple[str, str | None]:
    """Returns `base_model_name_or_path` and `revision`, as in PEFT's adapter_config.json."""
    name, _, revision = base.partition("@") if hub.is_hub_model(base) else (base, "", "")
    return name, revision or None
