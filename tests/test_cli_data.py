"""`paligemma data`: what data hold, for people and for programs."""

import json

import pytest
from data_cases import caption_example, photo, write_tfrecord
from mask_cases import square_arrays, write_codec
from PIL import Image

from paligemma_lib.cli.main import main


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Images").mkdir()
    rows = []
    for number in range(5):
        (tmp_path / "Images" / f"{number}.jpg").write_bytes(photo(min(number, 3)))
        rows += [f"{number}.jpg,a dog runs", f"{number}.jpg,dog {number}"]
    (tmp_path / "captions.txt").write_text("\n".join(["image,caption", *rows]) + "\n")
    return tmp_path


def told(capsys):
    return json.loads(capsys.readouterr().out)


def test_people_are_told_what_is_there(folder, capsys):
    assert main(["data", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "images     all 5" in out and "captions   10; images 5 with 2" in out
    assert "1 images occur more than once: 3.jpg = 4.jpg" in out


def test_names_do_not_act_on_a_terminal(folder, capsys):
    name = "a\x1b[2Jb\nimages     all 0.jpg"
    (folder / "Images" / name).write_bytes(b"no image")
    with (folder / "captions.txt").open("a") as file:
        file.write("\x1b[2J.jpg,a dog\n")
    (folder / "captions.txt").rename(folder / "x.csv")
    with (folder / "x.csv").open("a") as file:
        file.write(f'"{name}",a dog\n')
    given = ["--images", f"{folder}/Images", "--out", f"{folder}/\x1b.png"]
    assert main(["data", f"{folder}/x.csv", *given]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\\x1b[2J" in out and "\nimages     all 0.jpg" not in out


def test_links_that_lead_out_are_told_and_followed_if_allowed(folder, tmp_path, capsys):
    (folder / "Images" / "0.jpg").rename(tmp_path.parent / "elsewhere.jpg")
    (folder / "Images" / "0.jpg").symlink_to(tmp_path.parent / "elsewhere.jpg")
    assert main(["data", str(folder), "--json"]) == 1
    (problem,) = told(capsys)["unreadable"].values()
    assert "0.jpg is a link that leads out of" in problem
    assert main(["data", str(folder), "--json", "--allow-outside"]) == 0


def test_programs_are_told_the_same(folder, capsys):
    assert main(["data", str(folder), "--json"]) == 0
    found = told(capsys)
    assert (found["images"], found["captions"], found["splits"]) == (5, 10, {"all": 5})
    assert found["captions_per_image"] == {"2": 5} and found["unreadable"] == {}
    assert 5 < found["text_len"] < 60


def test_what_cannot_be_read_is_named_and_ends_with_1(folder, capsys):
    (folder / "Images" / "1.jpg").write_bytes(photo(1)[:200])
    (folder / "Images" / "2.jpg").unlink()
    assert main(["data", str(folder), "--json"]) == 1
    found = told(capsys)
    assert len(found["unreadable"]) == 2 and found["captions"] == 6
    assert any("there is no image '2.jpg'" in why for why in found["unreadable"].values())


def test_a_record_as_the_model_gets_it(folder, capsys):
    assert main(["data", str(folder), "--show", "3"]) == 0
    found = told(capsys)
    assert (found["image_id"], found["captions"]) == ("3.jpg", ["a dog runs", "dog 3"])
    assert all(tokens[-1] == 1 for tokens in found["tokens"]) and len(found["tokens"]) == 2
    with Image.open(folder / "Images" / "3.jpg") as image:
        assert found["size"] == list(image.size)
    assert main(["data", str(folder), "--show", "5"]) == 1
    assert "no record 5: the data has 5 records, numbered from 0" in capsys.readouterr().err


def test_a_sheet_of_nine_images(folder, capsys):
    assert main(["data", str(folder), "--out", str(folder / "sheet.png")]) == 0
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 700 and sheet.format == "PNG"


def test_a_sheet_shows_masks(tmp_path, capsys):
    (tmp_path / "1.jpg").write_bytes(photo(1))
    suffix = "<loc0100><loc0100><loc0900><loc0900>" + "<seg001>" * 16 + " dog"
    line = {"image": "1.jpg", "prefix": "segment dog", "suffix": suffix}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    codec = write_codec(tmp_path / "vae-oid.npz", **square_arrays())
    words = ["data", str(tmp_path / "a.jsonl"), "--out"]
    assert main([*words, str(tmp_path / "boxes.png")]) == 0
    assert main([*words, str(tmp_path / "masks.png"), "--masks", str(codec)]) == 0
    boxes, masks = (Image.open(tmp_path / f"{name}.png") for name in ("boxes", "masks"))
    assert boxes.size == masks.size and boxes.tobytes() != masks.tobytes()
    capsys.readouterr()
    assert main([*words, str(tmp_path / "x.png"), "--masks", str(tmp_path / "none.npz")]) == 1
    assert "none.npz" in capsys.readouterr().err


def test_what_is_not_there_is_told(tmp_path, capsys):
    assert main(["data", str(tmp_path / "none")]) == 1
    assert "none does not exist: expected a file or a folder" in capsys.readouterr().err


def test_equal_ids_in_several_record_files_are_found(tmp_path, capsys):
    write_tfrecord(tmp_path / "0.tfrecord", [caption_example(0), caption_example(1)])
    write_tfrecord(tmp_path / "1.tfrecord", [caption_example(2), caption_example(1, photo(3))])
    main(["data", str(tmp_path / "*.tfrecord"), "--json"])
    (problem,) = [each for each in told(capsys)["problems"] if "image ids" in each]
    assert problem.startswith("1 image ids belong to several images each") and "1.png" in problem
