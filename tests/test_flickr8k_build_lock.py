"""One build at a time into one folder, also after one that was killed; who holds it is told."""

import json
import signal
import socket
import time

import pytest
from etils import epath
from flickr8k_builds import IMAGES, build, examples, own_images, tfds_build
from flickr8k_sources import kaggle_files, write_tree

from flickr8k_tfds.build_lock import build_lock
from flickr8k_tfds.trees import DatasetError


def test_a_second_build_is_told_who_builds(tmp_path):
    folder = epath.Path(tmp_path / "data" / "1.0.0")
    with build_lock(folder):
        holder = f"process [0-9]+ on {socket.gethostname()} since 20"
        with (
            pytest.raises(DatasetError, match=f"1.0.0 is being built by {holder}"),
            build_lock(folder),
        ):
            pass
        with build_lock(epath.Path(tmp_path / "data" / "2.0.0")):
            pass
    with build_lock(folder):
        pass
    assert not list((tmp_path / "data").iterdir())


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), build_lock(epath.Path(tmp_path / "1.0.0")):
        raise RuntimeError
    with build_lock(epath.Path(tmp_path / "1.0.0")):
        pass


def test_a_lock_file_that_was_left_or_is_damaged_does_no_harm(tmp_path):
    for content in (b"", b"\xff", b"[]", json.dumps({"pid": 1}).encode()):
        (tmp_path / ".1.0.0.lock").write_bytes(content)
        with build_lock(epath.Path(tmp_path / "1.0.0")):
            (tmp_path / ".1.0.0.lock").write_bytes(content)
            with (
                pytest.raises(DatasetError, match="is being built by another process"),
                build_lock(epath.Path(tmp_path / "1.0.0")),
            ):
                pass


def test_what_a_killed_build_left_is_removed_and_the_rest_is_not(tmp_path):
    for name in ("incomplete.ABC123_1.0.0", "incomplete.ABC123_2.0.0", "2.0.0"):
        (tmp_path / name).mkdir()
    with build_lock(epath.Path(tmp_path / "1.0.0")):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {"incomplete.ABC123_2.0.0", "2.0.0", ".1.0.0.lock"}


def test_remote_folders_have_no_lock():
    with build_lock(epath.Path("gs://bucket/data/1.0.0")):
        pass


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_two_builds_that_start_together(tmp_path, flags):
    source = write_tree(tmp_path / "in", kaggle_files(IMAGES | own_images(2_000)))
    both = [tfds_build(source, tmp_path / "data", *flags) for _ in range(2)]
    said = [each.communicate()[0] for each in both]
    # One builds. The other is told so, or comes after it, and reuses or overwrites what is there.
    assert 0 in [each.returncode for each in both]
    for each, text in zip(both, said, strict=True):
        assert each.returncode == 0 or "is being built by process" in text, text
    assert len(examples(build(None, tmp_path / "data"))) == len(IMAGES) + 2_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_build_after_one_that_was_killed(tmp_path):
    source = write_tree(tmp_path / "in", kaggle_files(IMAGES | own_images(3_000)))
    first = tfds_build(source, tmp_path / "data")
    while not (found := list((tmp_path / "data").rglob("incomplete.*"))):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert found[0].exists()
    second = tfds_build(source, tmp_path / "data")
    assert second.communicate()[0] and second.returncode == 0
    assert not list((tmp_path / "data").rglob("incomplete.*"))
