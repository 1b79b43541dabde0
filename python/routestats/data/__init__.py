"""Prompts to run a model over: data sets, and the hub they may come from."""
