"""Capture of Hugging Face transformers models, for users without vLLM."""
