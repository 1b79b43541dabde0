"""What every result has: `print` shows its summary, `to_table` and `to_json` write it down."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from routestats.shape import RouteShape


class Result(ABC):
    """Base of every result of the public face; most are frozen dataclasses.

    A result gives `summary` and `to_table`. The rest follows from its fields, and a class that is
    no dataclass gives `to_dict` as well.
    """

    __slots__ = ()

    @abstractmethod
    def summary(self) -> str:
        """A few lines for a terminal."""

    @abstractmethod
    def to_table(self) -> pa.Table:
        """The values as an Arrow table; pandas, Polars and DuckDB read it."""

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
        shown = (field.name for field in fields(value) if not field.name.startswith("_"))
        return {name: plain(getattr(value, name)) for name in shown}
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
