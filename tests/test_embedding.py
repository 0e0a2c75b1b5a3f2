"""SigLIP from a folder, and scores of captions by what embeds them."""

import io
import json

import embedding_cases as cases
import numpy as np
import PIL.Image
import pytest
from safetensors.numpy import save_file

from paligemma_lib import embedding
from paligemma_lib.embedding.siglip_words import SiglipWords


class ByColour:
    """Embeds images by their mean colour, and texts by the colours that they name."""

    def images(self, images):
        means = np.array([np.asarray(each).mean((0, 1)) for each in images]) + 1
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

    def texts(self, texts):
        named = np.array(
            [[colour in each for colour in ("red", "green", "blue")] for each in texts]
        )
        named = named + 1e-3
        return (named / np.linalg.norm(named, axis=1, keepdims=True)).astype(np.float32)


def png(*colour: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (5, 4), colour).save(file, "PNG")
    return file.getvalue()


IMAGES = {"red.png": lambda: png(255, 0, 0), "blue.png": lambda: png(0, 0, 255)}
REFERENCES = {"red.png": ["a red thing", "red"], "blue.png": ["blue"]}


def test_the_right_captions_score_more_than_those_of_other_images():
    right = {"blue.png": "something blue", "red.png": "a red wall"}
    wrong = {"blue.png": "a red wall", "red.png": "something blue"}
    good = embedding.score_images(ByColour(), IMAGES, right, REFERENCES)
    bad = embedding.score_images(ByColour(), IMAGES, wrong, REFERENCES)
    assert good.image_ids == ("blue.png", "red.png")
    assert good.corpus["CLIPScore"] == pytest.approx(2.5, abs=0.05)
    assert good.corpus["RefCLIPScore"] == pytest.approx(2 * 2.5 / 3.5, abs=0.02)
    assert bad.corpus["CLIPScore"] < 0.1
    assert bad.corpus["RefCLIPScore"] < 0.1
    low, high = good.intervals()["CLIPScore"]
    assert low <= good.corpus["CLIPScore"] <= high


def test_what_does_not_meet_or_is_no_image_is_told():
    with pytest.raises(ValueError, match="only in the images: 'blue.png'"):
        embedding.score_images(ByColour(), IMAGES, {"red.png": "x"}, {"red.png": ["x"]})
    with pytest.raises(ValueError, match="'red.png' cannot be decoded as an image"):
        embedding.score_images(
            ByColour(), {"red.png": lambda: b"GIF"}, {"red.png": "x"}, {"red.png": ["x"]}
        )


@pytest.mark.parametrize(
    ("kind", "number", "told"),
    [
        ("texts", 1, "1 of 2 vectors .* of the caption of 'blue.png'"),
        ("texts", 2, "1 of 3 vectors .* of the reference of 'blue.png'"),
        ("images", 0, "1 of 2 vectors .* of the image of 'red.png'"),
    ],
)
def test_vectors_that_are_not_finite_are_no_scores(kind, number, told):
    class Broken(ByColour):
        def texts(self, texts):
            return self.spoiled("texts", super().texts(texts))

        def images(self, images):
            return self.spoiled("images", super().images(images))

        def spoiled(self, what, vectors):
            if what == kind and number < len(vectors) and (number != 1 or len(vectors) == 2):
                vectors[number, 0] = np.nan
            return vectors

    captions = {"red.png": "a red wall", "blue.png": "something blue"}
    with pytest.raises(ValueError, match=told):
        embedding.score_images(Broken(), IMAGES, captions, REFERENCES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return cases.siglip_folder(tmp_path_factory.mktemp("siglip") / "tiny")


@pytest.fixture
def copy(folder, tmp_path):
    """A copy to spoil."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_siglip_gives_vectors_of_length_1_whatever_stands_beside(folder):
    embedder = embedding.load(folder)
    texts = [f"dog {k}" for k in range(40)]
    vectors = embedder.texts(texts)
    assert vectors.shape == (40, cases.WIDTH) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedder.texts(texts[33:34])[0], vectors[33], atol=1e-6)
    rng = np.random.default_rng(0)
    images = [
        PIL.Image.fromarray(rng.integers(0, 256, (9, width, 3), np.uint8)) for width in (7, 30)
    ]
    both = embedder.images(images)
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embedder.images(images[1:])[0], both[1], atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_words_are_lower_case_without_punctuation_and_end_in_eos(folder):
    words = SiglipWords(folder)
    ids = words.encode(["A  DOG, runs!", "a dog runs", "dog " * 90, ""], 16)
    assert ids.shape == (4, 16)
    assert ids[0].tolist() == ids[1].tolist()
    assert ids[2, -1] == 1 and 1 not in ids[2, :-1]
    assert ids[3].tolist() == [1] * 16


def test_a_folder_of_something_else_is_refused(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "paligemma"}))
    with pytest.raises(ValueError, match="model_type is 'paligemma', expected one of clip, siglip"):
        embedding.load(copy)
    (copy / "config.json").write_text("[1")
    with pytest.raises(ValueError, match="config.json is damaged"):
        embedding.load(copy)
    (copy / "config.json").unlink()
    (copy / "a.npz").touch()
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        embedding.load(copy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("vision_model.head.probe"), "lacks the tensor vision_model.head.probe"),
        (
            lambda t: t.update({"text_model.head.bias": np.zeros(3, np.float32)}),
            r"text_model.head.bias is F32\[3\], expected floats \[24\]",
        ),
        (
            lambda t: t.update({"text_model.head.weight": np.zeros((0, 24), np.float32)}),
            r"text_model.head.weight is F32\[0, 24\], expected floats \[any, any\]",
        ),
        (
            lambda t: [t.pop(name) for name in list(t) if "text_model.encoder" in name],
            "hold no layers text_model.encoder.layers",
        ),
    ],
)
def test_weights_that_lack_something_are_told(copy, change, told):
    tensors = cases.weights()
    change(tensors)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ValueError, match=told):
        embedding.load(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(copy, value):
    tensors = cases.weights()
    tensors["text_model.head.weight"][2, 3] = value
    save_file(tensors, copy / "model.safetensors")
    told = r"model.safetensors: values are NaN or infinite in text_model.head.weight \(1 of 576\)"
    with pytest.raises(ValueError, match=told):
        embedding.load(copy)


def test_a_tensor_in_two_files_is_refused(copy):
    tensors = cases.weights()
    (copy / "model.safetensors").unlink()
    names = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    save_file(tensors, copy / names[0])
    save_file({"logit_bias": tensors["logit_bias"]}, copy / names[1])
    index = {"weight_map": {"logit_scale": names[0], "logit_bias": names[1]}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    told = f"{names[1]}: logit_bias is in {names[0]}, too"
    with pytest.raises(ValueError, match=told):
        embedding.load(copy)


def test_a_model_that_computes_otherwise_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["hidden_act"] = "quick_gelu"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="hidden_act='quick_gelu'.*expected SigLIP's"):
        embedding.load(copy)
    config["text_config"] = {"num_attention_heads": 7}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="width 24, which 7 heads do not divide"):
        embedding.load(copy)
