"""Data on remote storage: every form is found, and read in as few requests as it can be."""

import io
import os
import subprocess
import sys
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from data_cases import photo
from gcs_cases import Storage
from process_cases import ENVIRONMENT, ROOT, TIMEOUT

from paligemma_lib.data import files
from paligemma_lib.data.sources import open_source, splits_of
from paligemma_lib.data.sources.parquet_source import ArrowSource
from paligemma_lib.data.sources.webdataset_source import WebDatasetSource

COUNT = 6


def parquet(count=COUNT) -> bytes:
    images = [{"bytes": photo(k), "path": f"{k}.png"} for k in range(count)]
    out = io.BytesIO()
    captions = [f"image {k}" for k in range(count)]
    pq.write_table(pa.table({"image": images, "caption": captions}), out, row_group_size=3)
    return out.getvalue()


def tar(gap: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for k in range(COUNT):
            between = [(f".{k}", bytes(gap))] if gap else []
            for name, data in [(f"{k}.png", photo(k)), *between, (f"{k}.txt", b"image %d" % k)]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def beside() -> dict[str, bytes]:
    images = {f"photos/{k}.png": photo(k) for k in range(COUNT)}
    return images | {f"photos/{k}.txt": b"image %d" % k for k in range(COUNT)}


TABLE = b"image,caption\n" + b"".join(b"%d.png,image %d\n" % (k, k) for k in range(COUNT))


def put(folder: str, held: dict[str, bytes]) -> str:
    for name, data in held.items():
        tf.io.gfile.makedirs(f"{folder}/{name}".rpartition("/")[0])
        with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
            file.write(data)
    return folder


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("parquet", {"a/rows.parquet": parquet()}),
        ("tar", {"a/0.tar": tar()}),
        ("beside", beside()),
        ("table", beside() | {"metadata.csv": TABLE}),
        ("hidden", beside() | {"__MACOSX/0.png": b"no image", ".git/1.png": b"no image"}),
    ],
)
def test_a_remote_folder_is_known_by_its_files(name, held):
    source = open_source(put(f"ram://remote-{name}", held))
    records = source.read(range(COUNT))
    assert [(r.image, r.captions) for r in records] == [
        (photo(k), (f"image {k}",)) for k in range(COUNT)
    ]


def test_files_of_several_splits():
    held = {"train-0.parquet": parquet(6), "validation-0.parquet": parquet(4)}
    found = splits_of(put("ram://remote-splits", held))
    assert {name: len(source) for name, source in found.items()} == {"train": 6, "validation": 4}


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"notes.md": b"-"}, "has no data in a known format among its files: notes.md"),
        ({"a.png": photo(0), "x.csv": TABLE}, "among its files: x.csv. Give one of them"),
        ({"x.arrow": b"-"}, "Arrow files are read from a disk only"),
        ({"x.parquet": b"-"}, "not a complete Parquet"),
    ],
)
def test_a_remote_folder_of_an_unknown_form_is_told(held, message):
    folder = put(f"ram://remote-{abs(hash(message))}", held)
    with pytest.raises(ValueError, match=message):
        len(open_source(folder))


def test_a_remote_parquet_file_is_as_one_on_a_disk(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(parquet())
    local = ArrowSource((str(tmp_path / "rows.parquet"),))
    far = ArrowSource((f"{put('ram://remote-same', {'rows.parquet': parquet()})}/rows.parquet",))
    assert far.read(range(COUNT)) == local.read(range(COUNT))
    assert far.fingerprint() == local.fingerprint()
    with pytest.raises(FileNotFoundError, match="ram://remote-same/none.parquet does not exist"):
        len(ArrowSource(("ram://remote-same/none.parquet",)))


@pytest.mark.parametrize(("gap", "reads"), [(0, 1), (1 << 17, 2)])
def test_neighbours_in_a_tar_file_are_read_together(tmp_path, monkeypatch, gap, reads):
    (tmp_path / "0.tar").write_bytes(tar(gap))
    source = WebDatasetSource((str(tmp_path / "0.tar"),))
    assert len(source) == COUNT
    opened = []
    real = files.open_file
    monkeypatch.setattr(files, "open_file", lambda path: opened.append(path) or real(path))
    assert source.read([3])[0].captions == ("image 3",)
    assert len(opened) == reads


def test_a_remote_file_that_is_too_large_is_told():
    folder = put("ram://remote-large", {"x": bytes(2 << 20)})
    assert files.read_whole(f"{folder}/x", 2 << 20) == bytes(2 << 20)
    with pytest.raises(ValueError, match="ram://remote-large/x is larger than the limit of 1 MiB"):
        files.read_whole(f"{folder}/x", 1 << 20)


READ = """
import sys
from paligemma_lib.data.sources import open_source
for path in sys.argv[1:]:
    source = open_source(path)
    len(source)
    print("opened", flush=True), sys.stdin.readline()
    source.read(range(6))
    print("read", flush=True), sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_requests_of_each_form_on_gs(tmp_path):
    held = {"rows.parquet": parquet(), "0.tar": tar(), **beside()}
    held["table/metadata.csv"] = TABLE
    held |= {f"table/{k}.png": photo(k) for k in range(COUNT)}
    paths = [f"gs://bucket/{name}" for name in ("rows.parquet", "0.tar", "photos", "table")]
    with Storage(tmp_path) as storage:
        for name, data in held.items():
            storage.put(f"bucket/{name}", data)
        command = [sys.executable, "-c", READ, *paths]
        environment = os.environ | ENVIRONMENT | storage.environment
        environment |= {"GCS_READ_CACHE_DISABLED": "1"}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=-1, stdout=-1, text=True
        ) as process:

            def asked() -> Counter:
                """Requests until the next step: reads, and what only looks."""
                before = len(storage.requests)
                process.stdin.write("\n" * bool(before))
                process.stdin.flush()
                assert process.stdout.readline()
                kinds = ["looks" if "/storage/v1/" in r else "reads" for r in storage.requests]
                return Counter(kinds[before:])

            opened, read = zip(*((asked(), asked()) for _ in paths), strict=True)
            process.stdin.write("\n")
    # Two row groups, with captions and images; else one read a record, and two with texts beside.
    assert [each["reads"] for each in read] == [4, COUNT, 2 * COUNT, COUNT]
    assert not any(each["looks"] for each in read)
    # No file of a folder is looked at by itself.
    assert all(each["looks"] <= 6 for each in opened), opened
