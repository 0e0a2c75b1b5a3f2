"""Every field of a run, with the value most runs want: copy this file, or change some fields of it.

from configs import base

def get_config():
    config = base.get_config()
    config.batch_size = 32
    return config
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the fields that all configs share."""
    config = ConfigDict()
    config.workdir = "workdir"  # checkpoints, metrics, results; a folder, or gs://
    config.seed = 0  # of the order of pictures and of new parameters

    config.data = ConfigDict()
    config.data.kind = "tfds"  # tfds, jsonl, folder (of captions.txt and Images/), or sample
    config.data.name = "flickr8k_tfds"  # of the TFDS data set; for sample, how many pictures
    config.data.wording = "sentences"  # of a sample's captions, or labels
    config.data.dir = ""  # where TFDS keeps it, if not in its usual place
    config.data.damaged = "raise"  # records and pictures that are: raise, or replace by others
    config.data.train = "train"  # splits of TFDS; else paths of files or folders
    config.data.validation = "validation"
    config.data.test = "test"
    config.data.min_crop_area = 1.0  # train on random parts of pictures of at least this share
    config.data.mirror = False  # train on half of the pictures with left and right exchanged

    config.model = ConfigDict()
    config.model.checkpoint = ""  # .npz, folder of safetensors, gs://, Kaggle, nano; "": new
    config.model.name = "nano"  # of a new model: a function of paligemma_lib.model.variants
    config.model.tokenizer = ""  # path of a .model file; "": the checkpoint's, or PaliGemma's
    config.model.vocab_size = 0  # pieces of a tokenizer to train for a new model; 0: none
    config.model.image_size = 0  # pixels; 0: the checkpoint's
    config.model.dtype = "float32"  # of activations: float32, bfloat16, float16
    config.model.frozen_dtype = ""  # of parameters that never train; "": as in the file
    config.model.remat = "dots"  # none, dots, full: less memory, more computing

    config.prompt = "caption en"
    config.text_len = 128  # slots for prompt and captions
    config.captions = "packed"  # all captions of a picture behind it, or sample: one at a time
    config.lowercase = False
    config.truncate = False  # cut text that is too long, instead of stopping with an error

    # What trains from which step on: a preset, a regular expression, or several of them.
    # top_layers: only so many of the uppermost layers of each; 0: all.
    config.stages = ({"from_step": 0, "trainable": ("attention",), "top_layers": 0},)

    config.batch_size = 32  # pictures in a step, over all devices
    config.microbatches = 1  # parts of a batch that are computed one after the other
    config.epochs = 10.0
    config.label_smoothing = 0.0
    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # sgd, momentum, adamw, adafactor
    config.optimizer.learning_rate = 5e-5
    config.optimizer.schedule = "cosine"  # constant, cosine, linear
    config.optimizer.warmup = 0.05  # share of all steps
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.max_skipped = 20  # steps in a row with gradients that are not finite

    config.fsdp = 0  # devices over which parameters are split; 0: all
    config.validate_every = 0.5  # epochs
    config.save_every = 0.5  # epochs
    config.keep = 2  # checkpoints, beside the best
    config.may_differ = ()  # fields that may have changed when a run goes on

    config.evaluate_before = True  # caption the test pictures before training too
    config.test_pictures = 0  # how many of them; 0: all
    config.decode_batch_size = 16
    config.max_new_tokens = 48
    config.export = "paligemma_flickr8k.params.f16.npz"
    config.export_dtype = "float16"  # or bfloat16, float32
    return config
