"""The former place of `routestats.models.tiny_model`."""

from routestats.models import tiny_model as tiny_model
