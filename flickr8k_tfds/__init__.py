"""Registers Flickr8k with TensorFlow Datasets: `tfds.load("flickr8k_tfds")` works after import."""

from flickr8k_tfds.flickr8k_tfds_dataset_builder import Builder, Config

__all__ = ["Builder", "Config"]
