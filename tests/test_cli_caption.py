import csv
import json
import logging
import re
import warnings
from pathlib import Path

import captioning_cases as cases
import pytest
from PIL import Image
from report_cases import Page

import paligemma_lib as pg
from paligemma_lib.cli import main
from paligemma_lib.cli.console import keep_others_quiet
from paligemma_lib.decode import Beam

NAMES = ["1.jpg", "2.png", "deeper/3.JPG", "4.bmp", "5.webp"]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory) -> list[str]:
    return cases.write_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture
def images(tmp_path) -> Path:
    folder = cases.write_images(tmp_path / "Images", NAMES)
    (folder / "captions.txt").write_text("image,caption\n")
    (folder / "._1.jpg").write_bytes(b"left by macOS")
    return folder


def test_a_folder_is_captioned_to_every_format(captioner, images, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(["caption", *captioner, str(images), "--out-dir", str(out)])
    assert code == 0
    names = ["1.jpg", "2.png", "4.bmp", "5.webp", "deeper/3.JPG"]
    captions = cases.captions_of(captioner[1], [images / name for name in names])
    assert len(set(captions)) == 5
    zipped = list(zip(names, captions, strict=True))
    printed = capsys.readouterr().out.splitlines()
    assert [line[:28].strip() for line in printed] == names

    with open(out / "captions.csv", newline="", encoding="utf-8") as file:
        assert list(map(tuple, csv.reader(file))) == [("image", "caption"), *zipped]
    lines = [json.loads(line) for line in (out / "captions.jsonl").read_text("utf-8").splitlines()]
    assert [(line["image"], line["caption"]) for line in lines] == zipped
    assert all(line["logprob"] < 0 and line["alternatives"] == [] for line in lines)
    page = Page((out / "captions.html").read_text("utf-8"))
    assert "5 of 5 images are shown" in page.text
    assert len(page.all("img")) == 5
    with Image.open(out / "captions.png") as sheet:
        assert sheet.width == 1124
    assert sorted(path.name for path in out.iterdir()) == [
        f"captions.{kind}" for kind in ("csv", "html", "jsonl", "png")
    ]


def test_alone_it_captions_drawn_images_with_the_model_of_the_library(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pg.hub.fetching, "NANO", cases.write_nano(tmp_path))
    assert main(["caption", *cases.OPTIONS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"scene_{k:05d}.jpg" for k in range(12)]


@pytest.mark.slow
def test_beams_come_with_their_alternatives(captioner, images, tmp_path):
    out = [tmp_path / "a.jsonl", tmp_path / "a.html"]
    pictures = [images / "1.jpg", images / "2.png"]
    arguments = [*captioner, *map(str, pictures), "--sampler", "beam", "--beams", "3"]
    arguments += ["--length-penalty", "2"]
    assert main(["caption", *arguments, "--out", str(out[0]), "--out", str(out[1])]) == 0
    lines = [json.loads(line) for line in out[0].read_text("utf-8").splitlines()]
    captions = cases.captions_of(captioner[1], pictures, Beam(3, 2.0))
    assert [line["caption"] for line in lines] == captions
    logprobs = [[each["logprob"] for each in [line, *line["alternatives"]]] for line in lines]
    assert all(len(each) == 3 and max(each) < 0 for each in logprobs)
    assert len(Page(out[1].read_text("utf-8")).all("svg", "bar")) == 6


def test_damaged_images_are_skipped_and_told(captioner, images, tmp_path, capsys):
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:200])
    (images / "4.bmp").unlink()
    (images / "4.bmp").symlink_to(images / "gone.bmp")
    (images / "6.jpg").write_text("not an image")
    out = tmp_path / "out.html"
    arguments = [*captioner, str(images), str(images / "6.jpg"), "--out", str(out)]
    assert main(["caption", *arguments]) == 1
    printed = capsys.readouterr()
    assert [line[:28].strip() for line in printed.out.splitlines()] == [
        "1.jpg",
        "5.webp",
        "deeper/3.JPG",
    ]
    assert f"skipped {images / '2.png'}: not a complete JPEG" in printed.err
    assert f"skipped {images / '6.jpg'}: not a complete JPEG" in printed.err
    assert f"skipped {images / '4.bmp'}: {images / '4.bmp'} does not exist" in printed.err
    assert "3 of 6 images were skipped" in printed.err
    warnings_shown = Page(out.read_text("utf-8")).all("section", "warnings")
    assert len(warnings_shown) == 1


def test_a_neighbour_that_is_skipped_changes_no_caption(captioner, images, tmp_path):
    (images / "2.png").write_bytes(b"damaged")
    out = tmp_path / "a.csv"
    assert main(["caption", *captioner, str(images), "--out", str(out)]) == 1
    rows = list(csv.reader(out.read_text("utf-8").splitlines()))[1:]
    names = ["1.jpg", "4.bmp", "5.webp", "deeper/3.JPG"]
    captions = cases.captions_of(captioner[1], [images / name for name in names])
    assert rows == [list(pair) for pair in zip(names, captions, strict=True)]


def test_a_split_of_a_tfds_data_set_brings_its_references(captioner, tmp_path, capsys):
    import tensorflow_datasets as tfds

    import flickr8k_tfds

    dummy = Path(flickr8k_tfds.__file__).parent / "dummy_data"
    builder = flickr8k_tfds.Builder(data_dir=tmp_path / "tfds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=dummy))
    split, count = max(
        ((k, v.num_examples) for k, v in builder.info.splits.items()), key=lambda x: x[1]
    )
    out = tmp_path / "out.html"
    capsys.readouterr()
    arguments = [*captioner, "--data", "flickr8k_tfds", "--split", split]
    code = main(["caption", *arguments, "--data-dir", str(tmp_path / "tfds"), "--out", str(out)])
    assert code == 0
    assert len(capsys.readouterr().out.splitlines()) == count > 0
    page = Page(out.read_text("utf-8"))
    assert len(page.all("ul", "references")) == count
    assert len(page.all("img")) == count


def test_a_folder_of_safetensors_brings_its_own_tokenizer(captioner, images, tmp_path, capsys):
    folder, pictures = tmp_path / "captioner", [images / "1.jpg", images / "2.png"]
    pg.checkpoint.huggingface.export(
        cases.random_params(), cases.CONFIG, folder, tokenizer=captioner[3]
    )
    assert main(["caption", "--checkpoint", str(folder), *map(str, pictures), *cases.OPTIONS]) == 0
    captions = cases.captions_of(captioner[1], pictures)
    printed = capsys.readouterr().out.splitlines()
    assert [
        line.removeprefix(str(p)).strip() for line, p in zip(printed, pictures, strict=True)
    ] == captions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg", "--data", "flickr8k_tfds"], "give either images or --data"),
        (["a.jpg", "--out", "a.docx"], r"ends in .jsonl, .csv, .png, .html, .parquet"),
        (["a.jpg", "--sampler", "beam", "--beams", "0"], "Beam"),
        (["a.jpg", "--batch-size", "0"], "--batch-size=0, expected a whole number of at least 1"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(captioner, capsys, arguments, message):
    assert main(["caption", *captioner, *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/nothing/*.jpg"], "nothing/*.jpg has no images: expected an image file"),
        (["{}"], "has no images"),
        (["{}/1.jpg", "--out", "{}/missing/a.csv"], "its folder does not exist; create it"),
        (["{}/1.jpg", "--tokenizer", "{}/1.jpg"], "is not a SentencePiece model"),
    ],
)
def test_errors_are_told_in_a_line(captioner, tmp_path, capsys, arguments, message):
    if arguments != ["{}"]:
        cases.write_images(tmp_path, ["1.jpg"])
    given = [argument.format(tmp_path) for argument in arguments]
    assert main(["caption", *captioner, *given]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_checkpoint_that_is_missing_is_told(tmp_path, capsys):
    cases.write_images(tmp_path, ["1.jpg"])
    assert main(["caption", "--checkpoint", str(tmp_path / "no.npz"), str(tmp_path / "1.jpg")]) == 1
    assert "no.npz" in capsys.readouterr().err


def test_a_image_is_named_once_by_the_place_it_was_first_found(images):
    found = pg.data.from_image_files([f"{images}/*.png", str(images), f"{images}/1.jpg"])
    assert found.names == (f"{images}/2.png", "1.jpg", "4.bmp", "5.webp", "deeper/3.JPG")
    assert found.paths[1] == str(images / "1.jpg")


def test_a_record_of_a_log_cannot_command_a_terminal_or_forge_a_line(capsys):
    keep_others_quiet(verbose=True)
    logging.getLogger("paligemma_lib.somewhere").warning("skipped %s", "a\x1b[2J\nERROR: b")
    assert capsys.readouterr().err == "WARNING: skipped a\\x1b[2J\n  ERROR: b\n"


def test_images_of_two_folders_that_share_names_are_named_by_their_paths(
    captioner, tmp_path, capsys
):
    for name in ("a", "b"):
        cases.write_images(tmp_path / name, ["1.png"])
    given = [str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c.csv")]
    assert main(["caption", *captioner, *given]) == 0
    found = pg.metrics.read_captions(tmp_path / "c.csv")
    assert list(found) == [str(tmp_path / "a" / "1.png"), str(tmp_path / "b" / "1.png")]
    assert "share names, so they are named by their paths" in capsys.readouterr().err


def test_a_name_that_is_a_formula_comes_back_from_a_table(captioner, tmp_path, monkeypatch):
    cases.write_images(tmp_path, ["=1+1.png"])
    monkeypatch.chdir(tmp_path)
    assert main(["caption", *captioner, "=1+1.png", "--out", "c.csv"]) == 0
    assert "\n'=1+1.png," in Path("c.csv").read_text("utf-8")
    assert list(pg.metrics.read_captions("c.csv")) == ["=1+1.png"]


def test_a_prompt_with_a_control_token_is_wrong_use(captioner, images, capsys):
    assert main(["caption", *captioner, str(images), "--prompt", "<image>caption en"]) == 2
    assert "has <image>: leave it out" in capsys.readouterr().err


def test_captions_that_are_cut_off_are_warned_of(captioner, images, capsys):
    given = captioner[:4]
    assert main(["caption", *given, str(images / "1.jpg"), "--max-new-tokens", "1"]) == 0
    assert "1 of 1 captions (100%) are cut off after 1 tokens" in capsys.readouterr().err


def test_a_model_that_is_broken_is_an_error_and_no_empty_caption(
    captioner, images, tmp_path, capsys
):
    params = cases.random_params()
    params["llm"]["final_norm"]["scale"][:] = 3e38  # finite, but no logit is
    pg.checkpoint.save_params(tmp_path / "broken.npz", params)
    given = ["--checkpoint", str(tmp_path / "broken.npz"), *captioner[2:]]
    assert main(["caption", *given, str(images)]) == 1
    found = capsys.readouterr()
    assert found.out == "" and "1.jpg: the model's logits for image 0 are NaN" in found.err


def test_nano_says_that_it_knows_no_photographs(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pg.hub.fetching, "NANO", cases.write_nano(tmp_path))
    assert main(["caption", str(images / "1.jpg"), *cases.OPTIONS]) == 0
    assert f"warning: {pg.hub.NANO_KNOWS}" in capsys.readouterr().err
    assert main(["caption", *cases.OPTIONS]) == 0
    assert pg.hub.NANO_KNOWS not in capsys.readouterr().err
