"""Configs of known runs, by name: `paligemma finetune --config=flickr8k`. Copy one to start."""
