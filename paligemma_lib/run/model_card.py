"""Writes the card of a model on the Hugging Face Hub, from what its run has left in the workdir.

facts = facts_of(Path("runs/mine"))
text = model_card("me/my-captioner", config, facts)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from paligemma_lib.checkpoint.configuration import published_name
from paligemma_lib.model.variants import PaliGemmaConfig
from paligemma_lib.quantized import KINDS
from paligemma_lib.run.run_facts import Facts, is_number
from paligemma_lib.runtime.visible_text import visible

_LICENCES = {"paligemma": "gemma", "nano": "apache-2.0"}  # of published weights
_METRICS = {  # score -> metric of the Hub
    **{f"BLEU-{n}": "bleu" for n in range(1, 5)},
    "ROUGE-L": "rouge",
    "CIDEr": "cider",
    "VQA accuracy": "accuracy",
    "Exact match": "exact_match",
    "F1": "f1",
    "Mean IoU": "mean_iou",
}


def model_card(
    name: str, model: PaliGemmaConfig, facts: Facts, picture: str = "", adapter_of: str = ""
) -> str:
    """Returns the README.md of a model: the Hub's metadata, and a page for people.

    Args:
      name: OWNER/NAME on the Hub.
      model: its configuration, or that of the base of an adapter.
      facts: of its run.
      picture: file in the repository to show; "" for none.
      adapter_of: the base model of an adapter, perhaps with @REVISION; "" for a whole model.
    """
    from huggingface_hub import EvalResult, ModelCardData

    title, kind = name.partition("/")[2], published_name(model) or "PaliGemma of another size"
    licence = next((v for k, v in _LICENCES.items() if kind.startswith(k)), "other")
    if facts.config and not _checkpoint(facts):
        licence = "other"  # of a new model, for its owner to say
    base = adapter_of or facts.base
    data = facts.data or "data that are not told"
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=_slug([*facts.datasets, facts.data][0]),
            dataset_name=f"{data}, test images",
            metric_type=_METRICS.get(score, "other"),
            metric_name=score,
            metric_value=round(float(each["value"] or 0), 2),
        )
        for score, each in facts.scores.items()
    ]
    metadata = ModelCardData(
        language="en",
        license=licence,
        license_link="https://ai.google.dev/gemma/terms" if licence == "gemma" else None,
        library_name="peft" if adapter_of else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["paligemma", "image-captioning", "paligemma_lib"],
        base_model=base.partition("@")[0] or None,
        base_model_relation="adapter" if adapter_of else None,
        datasets=facts.datasets or None,
        model_name=title if results else None,
        eval_results=results or None,
    )
    parts = [
        f"---\n{metadata.to_yaml()}\n---",
        f"# {title}",
        _about(f"An adapter of {kind}" if adapter_of else kind, base, model, facts, data),
        *([f"![Images with captions of this model]({picture})"] if picture else []),
        *_scores(facts),
        _use(name, facts.prompt, adapter_of),
    ]
    return "\n\n".join(parts) + "\n"


def _about(kind: str, base: str, model: PaliGemmaConfig, facts: Facts, data: str) -> str:
    size = model.vision.image_size
    if not facts.config:
        return f"{kind} for images of {size} x {size} pixels. How it was trained is not recorded."
    stages = facts.config.get("stages") or []
    trained = [
        ", ".join(map(str, stage.get("trainable", ())))
        + (f" of the top {stage['top_layers']} layers" if stage.get("top_layers") else "")
        + (f" from step {stage['from_step']}" if stage.get("from_step") else "")
        for stage in stages
        if isinstance(stage, Mapping)
    ]
    base = base or ("nano" if _checkpoint(facts) == "nano" else "")
    optimizer = facts.config.get("optimizer", {})
    lines = [
        f"{kind} for images of {size} x {size} pixels, fine-tuned with paligemma_lib.",
        "",
        f"- began with: {base or 'a checkpoint or a new model of its own'}",
        f"- data: {_plain(data)}",
        f"- trained: {_plain('; '.join(trained) or 'not told')}",
        *_special(facts.config),
        f"- {facts.steps:,} steps of {facts.config.get('batch_size')} images, "
        f"{optimizer.get('name')}, learning rate {optimizer.get('learning_rate')}",
        f"- prompts such as: `{_plain(facts.prompt)}`",
    ]
    return "\n".join(lines)


def _checkpoint(facts: Facts) -> str:
    return str(facts.config.get("model", {}).get("checkpoint", ""))


def _special(config: Mapping[str, Any]) -> list[str]:
    """Returns lines on adapter, storage and reward, of a run that has them."""
    lora, reward = config.get("lora", {}), config.get("reward", {})
    storage = config.get("model", {}).get("frozen_dtype")
    lines = []
    if lora.get("rank"):
        kind = "DoRA" if lora.get("dora") else "LoRA"
        targets = ", ".join(map(str, lora.get("targets", ())))
        lines.append(f"- adapter: {kind} of rank {lora['rank']} beside {_plain(targets)}")
    if storage in KINDS:
        lines.append(f"- weights that did not train were stored as {storage}")
    if reward.get("name"):
        lines.append(f"- rewarded by: {_plain(str(reward['name']))}, on captions of its own")
    return lines


def _scores(facts: Facts) -> list[str]:
    """Returns the section on scores, with 95 % intervals over images; [] if there are none."""
    if not facts.scores:
        return []
    rows = []
    for name, each in facts.scores.items():
        bounds = [each.get("low"), each.get("high")]
        interval = " to ".join(f"{x:.1f}" for x in bounds if x is not None and is_number(x))
        rows.append(f"| {_plain(name)} | {each['value']:.1f} | {interval} |")
    table = "\n".join(["| score | value | 95 % interval |", "| --- | ---: | --- |", *rows])
    said = "Of the run's test images, times 100."
    told = [f"- {_plain(warning)}" for warning in facts.warnings]
    warned = ["What speaks against believing them:\n\n" + "\n".join(told)] if told else []
    return ["## Scores", said, table, *warned]


def _use(name: str, prompt: str, adapter_of: str) -> str:
    """Returns the section that shows how to load the model, here and in transformers."""
    shown = repr(_plain(prompt))
    whole, _, revision = (adapter_of or name).partition("@")
    from_whole = f'from_pretrained("{whole}"' + (f', revision="{revision}")' if revision else ")")
    here = [
        "import paligemma_lib as pg",
        "",
        f'print(pg.load("{name}").caption("dog.jpg", prompt={shown}))',
    ]
    there = [
        "from PIL import Image",
        *(["from peft import PeftModel"] if adapter_of else []),
        "from transformers import AutoProcessor, PaliGemmaForConditionalGeneration",
        "",
        f'processor = AutoProcessor.from_pretrained("{name}")',
        f"model = PaliGemmaForConditionalGeneration.{from_whole}",
        *([f'model = PeftModel.from_pretrained(model, "{name}")'] if adapter_of else []),
        'image = Image.open("dog.jpg").convert("RGB")',
        f'inputs = processor(images=image, text="<image>" + {shown}, return_tensors="pt")',
        "written = model.generate(**inputs, max_new_tokens=64, do_sample=False)",
        'new = written[0, inputs["input_ids"].shape[1] :]',
        "print(processor.decode(new, skip_special_tokens=True))",
    ]
    blocks = ("\n".join(["```python", *each, "```"]) for each in (here, there))
    return "\n\n".join(["## Use", *blocks])


def _plain(text: str) -> str:
    """Returns text that cannot act as markup."""
    return (
        re.sub(r"([\\`|<>\[\]])", r"\\\1", visible(text))
        if re.search(r"[`|<>\[\]]", text)
        else visible(text)
    )


def _slug(text: str) -> str:
    return re.sub(r"[^\w./-]+", "-", text).strip("-") or "unknown"
