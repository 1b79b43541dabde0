"""The shape of a model's routing: how many layers, experts and choices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routestats.errors import InvalidTypeError, InvalidValueError

MAX_EXPERTS = 65_536


@dataclass(frozen=True, slots=True)
class RouteShape:
    """Shape of the routing of one model.

    Parameters
    ----------
    num_layers : int
        MoE layers L, counted 0..L-1 (dense layers are not counted).
    num_experts : int
        Logical experts E per layer, at most 65,536.
    top_k : int
        Experts K chosen per token and layer, 1 <= K <= E.

    Raises
    ------
    InvalidTypeError
        If a value is no integer.
    InvalidValueError
        If a value is out of its range.
    """

    num_layers: int
    num_experts: int
    top_k: int

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_experts", "top_k"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise InvalidTypeError(f"{name}: expected an integer, got {value!r}")
            object.__setattr__(self, name, int(value))
        if self.num_layers < 1:
            raise InvalidValueError(f"num_layers: expected at least 1, got {self.num_layers}")
        if not 1 <= self.num_experts <= MAX_EXPERTS:
            raise InvalidValueError(
                f"num_experts: expected 1 to {MAX_EXPERTS}, got {self.num_experts}"
            )
        if not 1 <= self.top_k <= self.num_experts:
            raise InvalidValueError(
                f"top_k: expected 1 to num_experts = {self.num_experts}, got {self.top_k}"
            )

    @property
    def id_dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Dtype that stores expert ids: uint8 up to 256 experts, uint16 above."""
        return np.dtype(np.uint8) if self.num_experts <= 256 else np.dtype(np.uint16)

    @property
    def row_width(self) -> int:
        """Expert ids per token over all layers, L * K."""
        return self.num_layers * self.top_k

    def __str__(self) -> str:
        return f"{self.num_layers} layers x {self.num_experts} experts, top-{self.top_k}"
