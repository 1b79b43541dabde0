"""What is measured of a prediction: top-1 accuracy, recall among the best M, the exact set."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

from routestats.shape import RouteShape

RECALL = "recall_at_"


class Measure(NamedTuple):
    """A measure by its parts; `name` is what results, tables and arguments call it.

    Attributes
    ----------
    kind : {"top1_accuracy", "recall", "exact_set"}
    size : int or None
        M of a recall, else None.
    """

    kind: str
    size: int | None = None

    @classmethod
    def recall(cls, size: int) -> Measure:
        return cls("recall", size)

    @classmethod
    def named(cls, name: str) -> Measure | None:
        """The measure of this name, or None."""
        size = name.removeprefix(RECALL)
        if size != name and size.isdecimal() and int(size) > 0:
            return cls.recall(int(size))
        return next((measure for measure in (TOP1, EXACT) if measure.kind == name), None)

    @property
    def name(self) -> str:
        return self.kind if self.size is None else f"{RECALL}{self.size}"

    @property
    def label(self) -> str:
        """The name for people."""
        return LABELS[self.kind] if self.size is None else f"recall@{self.size}"

    @property
    def pairing(self) -> str:
        """Which of a target layer's choices are predicted: the first (``top1``), or ``any``."""
        return "top1" if self == TOP1 else "any"

    def most(self, top_k: int) -> int:
        """What one token can score at most: K for a recall, else 1."""
        return 1 if self.size is None else top_k

    def uniform(self, shape: RouteShape) -> float:
        """Expected share of a guess drawn evenly from all experts, or sets of experts."""
        if self == EXACT:
            return 1.0 / comb(shape.num_experts, shape.top_k)
        return (self.size or 1) / shape.num_experts


LABELS = {"top1_accuracy": "top-1 accuracy", "exact_set": "exact set"}
TOP1, EXACT = Measure("top1_accuracy"), Measure("exact_set")
