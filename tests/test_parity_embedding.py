"""Embeddings are those of transformers: SigLIP by our own towers, CLIP by theirs."""

import json

import embedding_cases as cases
import numpy as np
import PIL.Image
import pytest

from paligemma_lib import embedding
from paligemma_lib.cli import main

REASON = "needs transformers and torch (pip install -e '.[parity]')"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)

TEXTS = ["A dog runs, on the grass!", "two cats", "", "the snow " * 20]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    small = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((5, 7), (6, 3), (4, 4))]
    return [PIL.Image.fromarray(each).resize((90, 60)) for each in small]


def unit(vectors) -> np.ndarray:
    found = vectors.pooler_output.detach().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_siglip_is_that_of_transformers(tmp_path, images):
    folder = cases.siglip_folder(tmp_path / "siglip")
    ours = embedding.load(folder)
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"))
    side = cases.SIDE * cases.PATCH
    processor = transformers.SiglipImageProcessorPil(size={"height": side, "width": side})
    pixels = processor(images=images, return_tensors="pt").pixel_values
    theirs = unit(model.get_image_features(pixel_values=pixels))
    np.testing.assert_allclose(ours.images(images), theirs, atol=2e-5)
    ids = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=cases.LENGTH, return_tensors="pt"
    ).input_ids
    np.testing.assert_array_equal(ours.words.encode(TEXTS, cases.LENGTH), ids.numpy())
    theirs = unit(model.get_text_features(input_ids=ids))
    np.testing.assert_allclose(ours.texts(TEXTS), theirs, atol=2e-5)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    letters = [chr(k) for k in range(33, 127)]
    vocab = [*letters, *(f"{each}</w>" for each in letters), "<|startoftext|>", "<|endoftext|>"]
    ids = {token: number for number, token in enumerate(vocab)}
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(ids, [])
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4}
    special = {"bos_token_id": ids["<|startoftext|>"], "eos_token_id": ids["<|endoftext|>"]}
    special |= {"pad_token_id": ids["<|endoftext|>"], "vocab_size": len(vocab)}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={**sizes, **special, "max_position_embeddings": 20},
        vision_config={**sizes, "image_size": 24, "patch_size": 8},
        projection_dim=16,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
        ),
        tokenizer,
    )
    processor.save_pretrained(folder)
    return folder


def test_clip_masks_padding_and_cuts_what_is_too_long(clip_folder, images):
    ours = embedding.load(clip_folder)
    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(clip_folder)
    for text, vector in zip(TEXTS[:2], ours.texts(TEXTS)[:2], strict=True):
        alone = processor(text=[text], return_tensors="pt", truncation=True, max_length=20)
        np.testing.assert_allclose(vector, unit(model.get_text_features(**alone))[0], atol=2e-5)
    pixels = processor(images=images, return_tensors="pt")
    np.testing.assert_allclose(
        ours.images(images), unit(model.get_image_features(**pixels)), atol=2e-5
    )


def test_weights_of_clip_that_are_not_finite_are_named(clip_folder, tmp_path):
    model = transformers.CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        model.text_projection.weight[1, 2] = float("nan")
    model.save_pretrained(tmp_path)
    transformers.AutoProcessor.from_pretrained(clip_folder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"NaN or infinite in text_projection.weight \(1 of 384\)"):
        embedding.load(tmp_path)


def test_the_command_adds_both_scores(clip_folder, images, tmp_path, capsys):
    (tmp_path / "Images").mkdir()
    for number, image in enumerate(images):
        image.save(tmp_path / "Images" / f"{number}.png")
    captions = {f"photos/{number}": "a dog" for number in range(3)}  # named in another way
    (tmp_path / "r.json").write_text(json.dumps({name: ["A dog .", "cat"] for name in captions}))
    (tmp_path / "p.json").write_text(json.dumps(captions))
    files = ["--references", str(tmp_path / "r.json"), "--predictions", str(tmp_path / "p.json")]
    clip = ["--clip", str(clip_folder), "--images", str(tmp_path / "Images")]
    assert main(["score", *files, *clip, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["scores"]
    embedder = embedding.load(clip_folder)
    said = embedder.texts(["A photo depicts a dog"])[0]
    cosines = np.maximum(embedder.images(images) @ said, 0)
    assert found["CLIPScore"]["value"] == pytest.approx(250 * cosines.mean(), abs=1e-3)
    assert found["RefCLIPScore"]["low"] <= found["RefCLIPScore"]["value"]
    assert found["RefCLIPScore"]["value"] <= found["RefCLIPScore"]["high"]
