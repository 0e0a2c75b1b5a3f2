"""The card of a model: what its run tells, and nothing that it should not."""

import dataclasses
import json

import finetune_cases
import pytest
from huggingface_hub import ModelCard

from paligemma_lib.model import variants
from paligemma_lib.run import DataConfig, ModelConfig, PartConfig, RunConfig
from paligemma_lib.run.model_card import model_card
from paligemma_lib.run.run_facts import Facts, facts_of, origin_of

SCORES = {
    "CIDEr": {"value": 87.43, "low": 83.9, "high": 90.8},
    "BLEU-4": {"value": 25.0, "low": None, "high": None},
}


def facts(checkpoint="", scores=SCORES, commits=(), data_given=False, **data) -> Facts:
    """What a run that starts in this working directory records."""
    config = RunConfig(model=ModelConfig(checkpoint=checkpoint), data=DataConfig(**data))
    origin = origin_of(config, data_given=data_given)
    told = ("12 of 99 captions are the same",)
    return Facts(config.to_dict(), 1200, scores, told, origin, dict.fromkeys(commits, "37f3"))


def card(given: Facts, model=None, **how) -> ModelCard:
    return ModelCard(model_card("me/mine", model or variants.paligemma_3b(), given, **how))


def test_metadata_are_those_of_the_hub():
    given = facts(
        "google/paligemma/jax/paligemma-3b-pt-224/1", commits=["me/dogs@v1"], train="me/dogs@v1:all"
    )
    found = card(given).data
    assert found.base_model == "google/paligemma-3b-pt-224"
    assert found.license == "gemma" and "ai.google.dev/gemma" in found.license_link
    assert found.pipeline_tag == "image-text-to-text"
    assert found.datasets == ["me/dogs"]
    results = {each.metric_name: each for each in found.eval_results}
    assert results["CIDEr"].metric_value == 87.43
    assert results["BLEU-4"].metric_type == "bleu"


def test_names_mean_what_they_meant_where_the_run_started(tmp_path, monkeypatch):
    (tmp_path / "mine" / "train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    there = facts("mine/train", train="mine/train")
    monkeypatch.chdir(tmp_path / "mine")
    for given in (there, Facts(there.config, 1200)):  # and of a run that has recorded no origin
        found = card(given)
        assert found.data.base_model is None and found.data.datasets is None
        assert "- data: train\n" in found.text and "mine/train" not in found.text


def test_data_are_named_as_the_hub_has_them():
    files = facts(train="hf://datasets/me/dogs@v1/data/*.parquet")
    assert card(files).data.datasets == ["me/dogs"]
    parts = [PartConfig(train=each) for each in ("me/dogs:all", "/home/me/cats.csv", "me/birds")]
    several = facts(commits=["me/dogs@main", "me/birds@main"], mixture=tuple(parts))
    assert card(several).data.datasets == ["me/dogs", "me/birds"]
    assert "- data: me/dogs:all, cats.csv, me/birds\n" in card(several).text
    assert "- data: data that are not told\n" in card(facts(data_given=True)).text


def test_an_adapter_is_told_with_its_base_and_how_to_load_it():
    base = "google/paligemma-3b-pt-224@float16"
    given = facts(base)
    options = {"lora": {"rank": 8, "targets": ["llm"], "dora": False}, "reward": {"name": "cider"}}
    options["model"] = {"checkpoint": base, "frozen_dtype": "nf4"}
    found = card(dataclasses.replace(given, config={**given.config, **options}), adapter_of=base)
    assert found.data.base_model == "google/paligemma-3b-pt-224"
    for told in (
        f"- began with: {base}",
        "- adapter: LoRA of rank 8 beside llm",
        "- weights that did not train were stored as nf4",
        "- rewarded by: cider",
        'pg.load("me/mine")',
        'Generation.from_pretrained("google/paligemma-3b-pt-224", revision="float16")',
        'PeftModel.from_pretrained(model, "me/mine")',
    ):
        assert told in found.text, told


def test_a_new_model_has_the_licence_that_its_owner_gives_it():
    for model in (variants.nano(), variants.scratch()):
        assert card(facts(""), model).data.license == "other"
    assert card(facts("nano"), variants.nano()).data.license == "apache-2.0"


def test_people_read_data_training_scores_and_how_to_use_it():
    text = card(facts("nano", train="/home/me/secret/scenes/captions.txt")).text
    for told in (
        "paligemma_3b for images of 224 x 224 pixels",
        "- began with: nano",
        "- data: captions.txt",
        "- trained: attention",
        "1,200 steps of 32 images, adamw, learning rate 5e-05",
        "| CIDEr | 87.4 | 83.9 to 90.8 |",
        "| BLEU-4 | 25.0 |  |",
        "12 of 99 captions are the same",
        'pg.load("me/mine")',
        'AutoProcessor.from_pretrained("me/mine")',
    ):
        assert told in text, told
    assert "secret" not in text


def test_a_model_without_a_run_has_a_card_too():
    found = card(Facts(), variants.nano())
    assert found.data.license == "apache-2.0"
    assert found.data.eval_results is None
    assert "How it was trained is not recorded" in found.text
    assert "## Scores" not in found.text


def test_each_task_has_its_prompt():
    for task, prompt in (
        ("caption", "caption de"),
        ("answer", "answer en"),
        ("detect", "detect dog"),
    ):
        found = Facts({**RunConfig(prompt="caption de").to_dict(), "task": task})
        assert f"`{prompt}" in card(found).text


def test_texts_cannot_act_as_markup():
    config = RunConfig(prompt="<img src=x> | `a` [b](http://x)").to_dict()
    text = card(Facts(config, 1, SCORES, ("<script>alert(1)</script>",))).text
    assert "\\<img" in text and "\\<script\\>" in text
    assert "<script" not in text.replace("\\<script", "")


@pytest.mark.parametrize("broken", [b"", b"[1]", b'{"scores": 5}', b'{"scores": {"CIDEr": 5}}'])
def test_what_is_missing_or_damaged_stays_empty(tmp_path, broken):
    assert facts_of(tmp_path) == Facts()
    (tmp_path / "scores.json").write_bytes(broken)
    assert facts_of(tmp_path) == Facts()


def test_a_run_leaves_what_the_card_needs(tmp_path):
    config = finetune_cases.of(
        finetune_cases.tiny_run(tmp_path),
        tmp_path / "run",
        stages=({"from_step": 0, "trainable": ("attention",), "top_layers": 1},),
        epochs=1.0,
        evaluate_before=False,
    )
    assert finetune_cases.finetune(config) == 0
    found = facts_of(tmp_path / "run")
    assert found.steps == 3
    assert found.config["batch_size"] == 4
    written = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert found.scores["CIDEr"]["value"] == written["scores"]["CIDEr"]["value"]
    assert found.data == "train.jsonl"
    assert found.origin == {"base": "", "data_given": False}
    assert "attention of the top 1 layers" in card(found).text
