"""Flickr8k for TensorFlow Datasets; importing this makes `tfds.load("flickr8k_tfds")` work."""

from flickr8k_tfds.flickr8k_tfds_dataset_builder import Builder, Config

__all__ = ["Builder", "Config"]
