"""Models for machines without a hub, and what the command line's ``MODEL`` means."""

from routestats.models.built_in import tiny_model as tiny_model
from routestats.models.built_in import tiny_settings as tiny_settings

__all__ = ["tiny_model", "tiny_settings"]
