"""The live view and its metrics: routing while a model runs."""
