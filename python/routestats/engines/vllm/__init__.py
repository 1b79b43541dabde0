"""Capture inside vLLM: the plugin that vLLM loads, and what it attaches to."""
