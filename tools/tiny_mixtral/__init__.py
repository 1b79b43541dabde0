"""Parts of ``tools/train_tiny_mixtral.py``."""
