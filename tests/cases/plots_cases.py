"""What is asked of a drawn figure."""

from __future__ import annotations

from typing import Any


def legend_texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def colour_centre(axes: Any) -> float:
    """The value at the middle of the colour map of the first image."""
    centre: float = axes.get_images()[0].norm.vcenter
    return centre
