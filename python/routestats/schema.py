"""What capture hands on (`RoutingBatch`, `RequestRecord`) and how a trace is laid out on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape

FORMAT_VERSION = 1
METADATA_KEY = b"routestats"

PREFILL, DECODE = 0, 1
PHASES = ("prefill", "decode")
"""Values of the column ``phase``; `RoutingBatch.phase` holds indices into it."""


LOOKAHEAD_VARIANTS = ("as_is", "renormed")
"""What a later gate was applied to: the hidden state as it enters this layer's MoE block, or the
same with the later layer's own norm before it in place of this layer's."""


@dataclass(frozen=True, slots=True)
class LookaheadLayout:
    """How the column ``lookahead`` holds what later gates would have chosen.

    A row has, for each variant, for each source layer and each hop that stays within the model
    (source by source, hops ascending), the ids of the `ranks` best experts, best first: in all
    ``[len(variants), pairs, ranks]`` ids, flattened.

    Attributes
    ----------
    hops : tuple of int
        Ascending, from 1 to L - 1.
    ranks : int
        Experts kept of each prediction, M, at least K.
    variants : tuple of str
        Some of `LOOKAHEAD_VARIANTS`.
    """

    hops: tuple[int, ...]
    ranks: int
    variants: tuple[str, ...]

    def pairs(self, num_layers: int) -> tuple[tuple[int, int], ...]:
        """Source and target layer of each pair, in the order of the column."""
        return tuple(
            (source, source + hop)
            for source in range(num_layers)
            for hop in self.hops
            if source + hop < num_layers
        )

    def extents(self, num_layers: int) -> tuple[int, int, int]:
        """Extents of a row: variants, pairs, ranks."""
        return len(self.variants), len(self.pairs(num_layers)), self.ranks

    def width(self, num_layers: int) -> int:
        """Ids per row."""
        variants, pairs, ranks = self.extents(num_layers)
        return variants * pairs * ranks

    def to_dict(self) -> dict[str, Any]:
        """As ``run.json`` and the files' metadata hold it."""
        return {"hops": list(self.hops), "ranks": self.ranks, "variants": list(self.variants)}

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> LookaheadLayout | None:
        """The inverse of `to_dict`; None of None."""
        if not values:
            return None
        return cls(tuple(values["hops"]), int(values["ranks"]), tuple(values["variants"]))


@dataclass(frozen=True, slots=True, eq=False)
class RoutingBatch:
    """Complete rows of one domain: every layer of every row is filled.

    Attributes
    ----------
    domain : str
    request_ids : tuple of str
        The requests that have rows here.
    request_index : ndarray of int32, shape [T]
        Index into `request_ids` of each row.
    positions : ndarray of int32, shape [T]
        Position of the token in its request, from 0.
    token_ids : ndarray of int32, shape [T]
    phase : ndarray of uint8, shape [T]
        Index into `PHASES`.
    experts : ndarray of uint8 or uint16, shape [T, L, K]
        Logical expert ids, ordered by descending gate weight.
    weights : ndarray of float16, shape [T, L, K], or None
        Gate weights as applied.
    lookahead : ndarray of uint8 or uint16, shape [T, V, P, M], or None
        What later gates would have chosen, as `LookaheadLayout` says; of the dtype of `experts`.

    Raises
    ------
    InvalidTypeError, InvalidValueError
        If a column has another dtype or length.
    """

    domain: str
    request_ids: tuple[str, ...]
    request_index: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    token_ids: npt.NDArray[np.int32]
    phase: npt.NDArray[np.uint8]
    experts: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    weights: npt.NDArray[np.float16] | None = None
    lookahead: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | None = None

    def __post_init__(self) -> None:
        if self.experts.ndim != 3:
            raise InvalidValueError(
                f"experts: expected 3 dimensions [T, L, K], got {self.experts.ndim}"
            )
        if self.experts.dtype not in (np.uint8, np.uint16):
            raise InvalidTypeError(f"experts: expected uint8 or uint16, got {self.experts.dtype}")
        rows = len(self.experts)
        for name, dtype in (
            ("request_index", np.int32),
            ("positions", np.int32),
            ("token_ids", np.int32),
            ("phase", np.uint8),
        ):
            column = getattr(self, name)
            if column.dtype != dtype:
                raise InvalidTypeError(f"{name}: expected {np.dtype(dtype)}, got {column.dtype}")
            if column.shape != (rows,):
                raise InvalidValueError(f"{name}: expected shape ({rows},), got {column.shape}")
        if self.weights is not None:
            if self.weights.dtype != np.float16:
                raise InvalidTypeError(f"weights: expected float16, got {self.weights.dtype}")
            if self.weights.shape != self.experts.shape:
                raise InvalidValueError(
                    f"weights: expected shape {self.experts.shape}, got {self.weights.shape}"
                )
        if self.lookahead is not None:
            if self.lookahead.dtype != self.experts.dtype:
                raise InvalidTypeError(
                    f"lookahead: expected {self.experts.dtype}, got {self.lookahead.dtype}"
                )
            if self.lookahead.ndim != 4 or len(self.lookahead) != rows:
                raise InvalidValueError(
                    f"lookahead: expected shape [{rows}, V, P, M], got {self.lookahead.shape}"
                )

    def __len__(self) -> int:
        return len(self.experts)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One finished (or cut off) request of a run.

    Attributes
    ----------
    request_id : str
        As in the rows; unique within a run.
    domain : str
    external_id : str or None
        The id under which the caller knows the request.
    task_id : str or None
        The item of the data set, e.g. ``HumanEval/17``.
    group : str
        The prompt it samples: requests of one group are not independent, and are split and
        resampled together. By default a hash of the prompt's token ids.
    prompt_tokens, output_tokens : int
        Lengths in tokens. The last output token is never run, so a complete request has
        ``prompt_tokens + output_tokens - 1 - cached_tokens`` rows.
    cached_tokens : int
        Prompt tokens taken from the prefix cache: not computed, hence without a row.
    finish_reason : str or None
        As the engine gives it (``stop``, ``length``, ``abort``); None where it does not.
    """

    request_id: str
    domain: str
    group: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    external_id: str | None = None
    task_id: str | None = None
    finish_reason: str | None = None

    @property
    def rows(self) -> int:
        """Rows that a complete capture of this request has."""
        return self.prompt_tokens + self.output_tokens - 1 - self.cached_tokens


def token_schema(
    shape: RouteShape,
    layer_ids: Sequence[int],
    *,
    weights: bool,
    lookahead: LookaheadLayout | None = None,
) -> pa.Schema:
    """Arrow schema of the files under ``tokens/``; its metadata makes one file readable alone.

    Parameters
    ----------
    shape : RouteShape
    layer_ids : sequence of int, length L
        Decoder-layer number of each MoE layer.
    weights : bool
        Whether gate weights are stored.
    lookahead : LookaheadLayout, optional
        How what later gates would have chosen is stored, if it is.
    """
    ids = pa.from_numpy_dtype(shape.id_dtype)
    fields = [
        pa.field("request_id", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("phase", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("experts", pa.list_(ids, shape.row_width), nullable=False),
    ]
    if weights:
        fields.append(pa.field("weights", pa.list_(pa.float16(), shape.row_width), nullable=False))
    if lookahead is not None:
        width = lookahead.width(shape.num_layers)
        fields.append(pa.field("lookahead", pa.list_(ids, width), nullable=False))
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "num_layers": shape.num_layers,
        "num_experts": shape.num_experts,
        "top_k": shape.top_k,
        "layer_ids": [int(i) for i in layer_ids],
    }
    if lookahead is not None:
        meta["lookahead"] = lookahead.to_dict()
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(meta).encode()})


def request_schema() -> pa.Schema:
    """Arrow schema of the files under ``requests/``, one row per request."""
    return pa.schema(
        [
            pa.field("request_id", pa.string(), nullable=False),
            pa.field("domain", pa.string(), nullable=False),
            pa.field("group", pa.string(), nullable=False),
            pa.field("prompt_tokens", pa.int32(), nullable=False),
            pa.field("output_tokens", pa.int32(), nullable=False),
            pa.field("cached_tokens", pa.int32(), nullable=False),
            pa.field("external_id", pa.string()),
            pa.field("task_id", pa.string()),
            pa.field("finish_reason", pa.string()),
        ],
        metadata={METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION}).encode()},
    )
