"""Installs paligemma_lib and flickr8k_tfds; tool configuration is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
CODE = (HERE / "paligemma_lib" / "__init__.py").read_text("utf-8")
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', CODE, re.MULTILINE)

INSTALL = [
    "tensorflow>=2.21",
    "tensorflow-datasets>=4.9.10",
    # The `tfds` command of TFDS 4.9.10 imports these and does not declare them.
    "apache-beam>=2.70",
    "mlcroissant>=1.0",
    "importlib_resources>=6.0",
    # A minor release of JAX removes names; 0.10 to 0.12 are tested.
    "jax>=0.10,<0.13",
    "flax>=0.12",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.19",  # 0.11.10 does not import with JAX 0.10
    "lazy_loader>=0.4",
    "tqdm>=4.66",
    "psutil>=6.0",
    "tensorboard>=2.19",
    "sentencepiece>=0.2.1",
    "kagglehub>=0.3",
    # Data of the Hugging Face Hub. 2.4: listings of repositories are cached for offline use.
    "huggingface_hub>=2.4",
    "pyyaml>=6.0.2",
    "google-crc32c>=1.5",
    "ml_collections>=1.0",
    # Options of a run: types, bounds and all errors at once.
    "pydantic>=2.7",
    # Parquet and Arrow, as the Hugging Face Hub has data.
    "pyarrow>=15",
    "numpy>=2.0",
    "pillow>=11.0",
]

# The HTTP endpoint.
SERVE = [
    "starlette>=1.0",
    "uvicorn>=0.50",
    "python-multipart>=0.0.20",
    "prometheus_client>=0.21",
]

EXTRAS = {
    # dill: the test harness of TFDS imports it and does not declare it.
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "gcsfs>=2024.6",
        "safetensors>=0.5",
        "pillow-heif>=1.0",
        "dill>=0.3.8",
        "openai>=2",
        *SERVE,
    ],
    # To hold the model and its conversions against Hugging Face's.
    "parity": ["torch>=2.7", "transformers>=5.23", "peft>=0.17"],
    # The published scores' own code (100 MB, and Java): to compare with, and for METEOR and SPICE.
    "scores": ["pycocoevalcap>=1.2"],
    # CLIPScore by CLIP; by SigLIP it needs nothing more.
    "clip": ["torch>=2.7", "transformers>=5.23"],
    # basedpyright: pyright with a node of its own, to hold the types that users see.
    "dev": [
        "ruff>=0.12",
        "mypy>=1.15",
        "basedpyright>=1.31",
        "build>=1.2",
        "pre-commit>=4",
        "check-jsonschema>=0.37",  # of workflows and forms
        "check-wheel-contents>=0.6",
        "twine>=6",
    ],
    # To stream checkpoints from gs:// in one pass, without a download.
    "gcs": ["fsspec>=2024.6", "gcsfs>=2024.6"],
    # Where runs are followed, besides TensorBoard.
    "wandb": ["wandb>=0.19"],
    "mlflow": ["mlflow>=3.1"],
    "trackio": ["trackio>=0.10"],
    # Average precision of boxes.
    "detect": ["pycocotools>=2.0.8"],
    "app": ["streamlit>=1.67"],
    "serve": SERVE,
    # HEIC images. Not installed by default: its wheels hold GPL code.
    "heic": ["pillow-heif>=1.0"],
    # To test the web app in Debian's chromium.
    "browser": ["playwright>=1.50"],
    # To run the notebook as its test does.
    "notebook": ["nbclient>=0.10", "ipykernel>=6.29"],
    # Material for MkDocs ends in 2027; Zensical, which succeeds it, reads the same mkdocs.yml.
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.30"],
    "tpu": ["jax[tpu]>=0.10"],
    "cuda": ["jax[cuda12]>=0.10"],
}

setup(
    name="paligemma_lib",
    version=VERSION,
    description="Fine-tune PaliGemma to caption images: tf.data streaming and sharded JAX training",
    author="The authors of paligemma_lib",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["paligemma_lib*", "flickr8k_tfds*"]),
    package_data={
        "paligemma_lib": ["py.typed", "**/*.pyi", "nano/*", "report/style.css", "notebook/*.css"],
        "flickr8k_tfds": [
            "py.typed",
            "README.md",
            "CITATIONS.bib",
            "TAGS.txt",
            "checksums.tsv",
            "splits/*.txt",
            "dummy_data/captions.txt",
            "dummy_data/Images/*",
        ],
    },
    install_requires=INSTALL,
    entry_points={"console_scripts": ["paligemma = paligemma_lib.cli.main:main"]},
    extras_require=EXTRAS,
    keywords=["paligemma", "image captioning", "fine-tuning", "lora", "jax", "tf.data", "tfds"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
