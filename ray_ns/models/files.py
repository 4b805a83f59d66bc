"""The names of a network's two files, as timm and the Hugging Face hub know them."""

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
