"""Registers Flickr8k with TensorFlow Datasets: `tfds.load("flickr8k_tfds")` works after import."""

from flickr8k_tfds.build_config import Config
from flickr8k_tfds.flickr8k_tfds_dataset_builder import Builder

__all__ = ["Builder", "Config"]
