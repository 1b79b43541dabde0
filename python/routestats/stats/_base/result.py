"""What the results of this package have in common."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import numpy as np

from routestats.shape import RouteShape


class Result:
    """Base of results: a frozen dataclass that can be written down; `print` shows its summary."""

    __slots__ = ()

    def summary(self) -> str:
        """A few lines for a terminal."""
        raise NotImplementedError(f"{type(self).__name__} has no summary")

    def __str__(self) -> str:
        return self.summary()

    def to_dict(self) -> dict[str, Any]:
        """All values as plain Python numbers and lists (NaN as None), ready for `json.dumps`."""
        values: dict[str, Any] = plain(self)
        return values

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` in types that JSON knows; a NaN, which JSON has not, becomes None."""
    if isinstance(value, RouteShape):
        return {
            "num_layers": value.num_layers,
            "num_experts": value.num_experts,
            "top_k": value.top_k,
        }
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
