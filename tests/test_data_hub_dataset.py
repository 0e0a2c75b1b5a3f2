"""Data sets of the Hub: what is downloaded, and that it opens as local data do."""

import io
import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest
from data_cases import photo
from form_cases import NAMES, as_coco, as_imagefolder, as_parquet, as_sidecars
from hub_server import from_folder
from huggingface_hub import constants

from paligemma_lib.data import open_source
from paligemma_lib.data.sources import splits_of
from paligemma_lib.data.sources.hub_commits import commits_of, pinned

CARD = b"---\nlicense: mit\n%s---\n# Dogs\n"


@pytest.fixture
def images(tmp_path):
    """A folder with Images/, in which each form of data is written."""
    folder = tmp_path / "local"
    (folder / "Images").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        (folder / "Images" / name).write_bytes(photo(number))
    return folder


def records(source):
    return source.read(range(len(source)))


def imagefolder(folder):
    as_imagefolder(folder)
    shutil.move(folder / "Images", folder / "train")
    shutil.copytree(folder / "train", folder / "test")


def parquet(folder):
    table = pq.read_table(as_parquet(folder))
    (folder / "data.parquet").unlink()
    shutil.rmtree(folder / "Images")
    (folder / "data").mkdir()
    pq.write_table(table[:4], folder / "data" / "train-00000-of-00002.parquet")
    pq.write_table(table[4:], folder / "data" / "train-00001-of-00002.parquet")
    pq.write_table(table[:2], folder / "data" / "test-00000-of-00001.parquet")


def webdataset(folder):
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        with tarfile.open(folder / f"{split}-000.tar", "w") as archive:
            for k in numbers:
                for end, data in (("png", photo(k)), ("txt", f"c {k}".encode())):
                    info = tarfile.TarInfo(f"{k}.{end}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    shutil.rmtree(folder / "Images")


def texts(folder):
    as_sidecars(folder)


@pytest.mark.parametrize("form", [imagefolder, parquet, webdataset, texts])
def test_each_form_is_the_same_as_in_a_local_folder(dogs, images, form):
    form(images)
    dogs.commit({**from_folder(images), "README.md": CARD % b"", "weights.bin": b"x" * 5000})
    there, here = splits_of("somebody/dogs"), splits_of(str(images))
    assert [*there] == [*here]
    for split, source in here.items():
        assert records(there[split]) == records(source) and len(source) > 1
        assert there[split].fingerprint() == source.fingerprint()


@pytest.mark.parametrize("table", ["annotations.json", "notes/annotations.json"])
def test_a_table_finds_its_images_in_the_repository(dogs, images, table):
    local = as_coco(images)
    expected = records(open_source(str(local)))
    (images / table).parent.mkdir(exist_ok=True)
    local.rename(images / table)
    dogs.commit(from_folder(images))
    assert records(open_source(f"hf://datasets/somebody/dogs/{table}")) == expected


def test_only_what_the_form_needs_is_downloaded(hub, dogs, images):
    parquet(images)
    files = from_folder(images)
    dogs.commit({**files, "README.md": CARD % b"", "old.zip": b"z", "x.py": b"raise SystemExit"})
    assert len(open_source("somebody/dogs#test")) == 2
    (downloaded,) = [path for path in hub.requests if path.startswith("GET /cdn/")]
    assert (
        hub.blobs[downloaded.removeprefix("GET /cdn/")] == files["data/test-00000-of-00001.parquet"]
    )
    assert hub.downloads() == ["README.md"]  # small, so the Hub sends it itself
    assert len(splits_of("somebody/dogs")["train"]) == 6
    assert not any(path.endswith((".zip", ".py")) for path in hub.requests)
    hub.requests.clear()
    splits_of("somebody/dogs")
    assert hub.requests == ["GET /api/datasets/somebody/dogs/revision/main"]


def test_the_size_is_told_before_the_download(hub, dogs, images, caplog):
    parquet(images)
    commit = dogs.commit(from_folder(images))
    caplog.set_level("INFO", "paligemma_lib")
    splits_of("somebody/dogs")
    assert caplog.messages[0].startswith(f"somebody/dogs, commit {commit}: 3 .parquet, 0.")
    splits_of("somebody/dogs")
    assert caplog.messages[-1].endswith(" MB, in the cache")


def test_the_configuration_of_the_card(dogs, images):
    whole = pq.read_table(as_parquet(images))

    def packed(table):
        out = io.BytesIO()
        pq.write_table(table, out)
        return out.getvalue()

    card = b"""configs:
- config_name: small
  data_files: small/*.parquet
- config_name: large
  default: true
  data_files:
  - split: train
    path: [large/test_a.parquet, "large/b-*"]
  - split: restval
    path: large/val.parquet
"""
    dogs.commit(
        {
            "README.md": CARD % card,
            "small/0.parquet": packed(whole[:1]),
            "large/test_a.parquet": packed(whole[:2]),
            "large/b-0.parquet": packed(whole[2:5]),
            "large/val.parquet": packed(whole[5:]),
        }
    )
    found = splits_of("somebody/dogs")
    assert {name: len(source) for name, source in found.items()} == {"train": 5, "restval": 1}
    assert [record.image_id for record in records(found["train"])] == NAMES[:5]
    assert len(open_source("somebody/dogs:small")) == 1
    assert len(open_source("hf://datasets/somebody/dogs/large/val.parquet")) == 1
    assert len(open_source("hf://datasets/somebody/dogs/large/*.parquet")) == 6
    with pytest.raises(ValueError, match="has no configuration 'smal'; it has small, large"):
        splits_of("somebody/dogs:smal")


@pytest.mark.parametrize("revision", ["~parquet", "refs/convert/parquet"])
def test_the_parquet_export_of_a_data_set_with_a_script(dogs, images, revision):
    dogs.commit({"dogs.py": b"import datasets", "images.zip": b"z"})
    with pytest.raises(
        ValueError, match="loading script only, dogs.py, and this library runs no code"
    ):
        splits_of("somebody/dogs")
    with pytest.raises(FileNotFoundError, match="no such revision .* only if the Hub could"):
        splits_of(f"somebody/dogs@{revision}")
    export = {"default/train/0000.parquet": as_parquet(images).read_bytes()}
    dogs.commit(export, "refs/convert/parquet")
    dogs.commits[dogs.refs["refs/convert/parquet"]] = export
    assert len(splits_of(f"somebody/dogs@{revision}")["train"]) == 6


def test_two_revisions_do_not_mix(dogs, images):
    as_imagefolder(images)
    files = from_folder(images / "Images")
    old = dogs.commit(files)
    dogs.refs["v1"] = old
    lines = [json.dumps({"file_name": name, "text": "new"}) for name in NAMES]
    new = dogs.commit({"metadata.jsonl": "\n".join(lines).encode(), "extra/img_0.png": photo(9)})
    for revision, caption in ((new, "new"), (old, f"c {NAMES[0]}"), ("v1", f"c {NAMES[0]}")):
        source = open_source(f"somebody/dogs@{revision}")
        assert source.read([0])[0].captions == (caption,) and len(source) == 6
    with pytest.raises(FileNotFoundError, match="somebody/dogs@v2: no such revision"):
        open_source("somebody/dogs@v2")


def test_other_files_in_the_cache_do_not_change_what_is_found(dogs, images):
    dogs.commit(
        {"a.parquet": as_parquet(images).read_bytes(), "metadata.csv": b"image,text\nx,y\n"}
    )
    before = open_source("somebody/dogs").fingerprint()
    with pytest.raises(ValueError, match="none of its 1 images is in"):
        len(open_source("hf://datasets/somebody/dogs/metadata.csv"))
    assert open_source("somebody/dogs").fingerprint() == before


def test_a_cache_that_was_emptied_is_filled_again(hub, dogs, images):
    as_imagefolder(images)
    dogs.commit(from_folder(images / "Images"))
    expected = records(open_source("somebody/dogs"))
    shutil.rmtree(constants.HF_HUB_CACHE)
    hub.requests.clear()
    assert records(open_source("somebody/dogs")) == expected
    assert any("/cdn/" in path for path in hub.requests)


def test_several_processes_may_ask_for_the_same_at_once(dogs, images):
    as_imagefolder(images)
    dogs.commit(from_folder(images / "Images"))
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: records(open_source("somebody/dogs")), range(4))]
    assert found == [found[0]] * 4 and len(found[0]) == 6


def test_thousands_of_images_are_asked_for_by_their_folders(dogs, tmp_path):
    names = [f"img/{number}.png" for number in range(120)]  # three pages of the listing
    lines = [json.dumps({"file_name": name, "text": "a dog"}) for name in names]
    files = {name: photo(number % 7) for number, name in enumerate(names)}
    dogs.commit({**files, "metadata.jsonl": "\n".join(lines).encode(), "img/notes.md": b"no"})
    source = open_source("somebody/dogs")
    assert len(source) == 120 and source.read([119])[0].image == photo(0)


def test_commits_are_asked_for_once_and_stay(hub, dogs, images):
    parquet(images)
    commit = dogs.commit(from_folder(images))
    paths = ["somebody/dogs#train", "hf://datasets/somebody/dogs#test", "train[:10]", str(images)]
    commits = commits_of(paths, {})
    assert commits == {"somebody/dogs@main": commit}
    dogs.commit({"data/test-00001-of-00002.parquet": b"broken"})
    hub.requests.clear()
    assert commits_of(paths, commits) == commits and hub.requests == []
    assert [pinned(path, commits) for path in paths] == [
        f"hf://datasets/somebody/dogs@{commit}#train",
        f"hf://datasets/somebody/dogs@{commit}#test",
        *paths[2:],
    ]
    assert len(open_source(pinned(paths[1], commits))) == 2
