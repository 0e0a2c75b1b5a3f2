import subprocess
import sys

import pytest
import tensorflow as tf
from flickr8k_builds import ROOT

PROGRAM = """
import sys
import tensorflow as tf
from tensorflow_datasets.core.file_adapters import FileFormat
from flickr8k_tfds.reproducible_writer import ReproducibleWriter
value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"]))
names = [f"feature{k}" for k in range(20)]
example = tf.train.Example(features=tf.train.Features(feature={name: value for name in names}))
writer = ReproducibleWriter(FileFormat.from_value(sys.argv[1]))
writer.write(sys.argv[2], [(0, example.SerializeToString())])
"""


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_two_processes_write_the_same_bytes(tmp_path, file_format):
    paths = [tmp_path / f"{run}.{file_format}" for run in range(2)]
    for path in paths:
        subprocess.run([sys.executable, "-c", PROGRAM, file_format, path], cwd=ROOT, check=True)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    if file_format == "tfrecord":
        (record,) = tf.data.TFRecordDataset([str(paths[0])])
        example = tf.train.Example.FromString(record.numpy())
        assert len(example.features.feature) == 20
        assert first.index(b"feature0") < first.index(b"feature1") < first.index(b"feature19")
