"""What capture hands on (`RoutingBatch`, `RequestRecord`) and how a trace is laid out on disk."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.errors import InvalidTypeError, InvalidValueError
from routestats.shape import RouteShape

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 2 adds the nullable column ``step``."""
METADATA_KEY = b"routestats"

# --- the files of a run ---

RUN_FILE = "run.json"
LOCK_FILE = ".lock"
FEED_FILE = "live/feed.bin"
COUNTS_FILE = "counts-any.npz"
PATHS_FILES: dict[Literal["top1", "set"], str] = {
    "top1": "paths-top1.parquet",
    "set": "paths-set.parquet",
}
SAVED_PATHS = 1000
"""Paths that such a file lists, the most frequent ones; all of a run that has fewer."""

DEFAULT_DOMAIN = "default"
_DOMAIN = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def is_domain(name: object) -> bool:
    """Whether `name` can be a domain: 1 to 100 letters, digits, ``_``, ``.``, ``-``; no dots alone.

    It names a folder. This is the only rule: captures, request ids, data sets and readers use it.
    """
    return isinstance(name, str) and bool(_DOMAIN.fullmatch(name)) and set(name) != {"."}


def check_domain(name: object) -> str:
    """Return `name` if it `is_domain`, else raise `InvalidValueError`."""
    if not isinstance(name, str) or not is_domain(name):
        got = repr(name) if len(repr(name)) <= 60 else repr(name)[:60] + "..."
        raise InvalidValueError(
            f"domain: expected up to 100 letters, digits, '_', '.' and '-', got {got}"
        )
    return name


# --- a row ---

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


@dataclass(frozen=True, slots=True)
class RowColumn:
    """A column of a row: the one place that says how batches and files hold it.

    Attributes
    ----------
    field : str
        Attribute of `RoutingBatch`.
    name : str
        Column of the files, and what ``columns=`` calls it.
    dtypes : tuple of NumPy scalar types
        The first is that of up to 256 experts.
    ndim : int
        Dimensions, the rows' included.
    optional : bool
        Whether a batch may have None in its place.
    nullable : bool
        Whether it is null in the files where a row lacks it, and absent in those of version 1. An
        optional column that is not nullable is absent where a run lacks it.
    names : NumPy scalar type, optional
        Of the indices in the files, where they hold names and a batch holds indices into names.
    """

    field: str
    name: str
    dtypes: tuple[type[np.generic], ...]
    ndim: int = 1
    optional: bool = False
    nullable: bool = False
    names: type[np.signedinteger[Any]] | None = None

    def dtype(self, shape: RouteShape) -> np.dtype[Any]:
        """Dtype in a batch."""
        return shape.id_dtype if len(self.dtypes) > 1 else np.dtype(self.dtypes[0])

    def extents(self, shape: RouteShape, lookahead: LookaheadLayout | None) -> tuple[int, ...]:
        """Extents of one row, ``()`` of a plain value."""
        if self.ndim == 1:
            return ()
        if self.name == "lookahead":
            assert lookahead is not None
            return lookahead.extents(shape.num_layers)
        return shape.num_layers, shape.top_k

    def arrow_type(self, shape: RouteShape, lookahead: LookaheadLayout | None) -> pa.DataType:
        """Type in the files."""
        if self.names is not None:
            return pa.dictionary(pa.from_numpy_dtype(self.names), pa.string())
        values = pa.from_numpy_dtype(self.dtype(shape))
        extents = self.extents(shape, lookahead)
        return pa.list_(values, math.prod(extents)) if extents else values


ROW_COLUMNS = {
    column.name: column
    for column in (
        RowColumn("request_index", "request_id", (np.int32,), names=np.int32),
        RowColumn("positions", "position", (np.int32,)),
        RowColumn("token_ids", "token_id", (np.int32,)),
        RowColumn("phase", "phase", (np.uint8,), names=np.int8),
        RowColumn("step", "step", (np.uint32,), optional=True, nullable=True),
        RowColumn("experts", "experts", (np.uint8, np.uint16), ndim=3),
        RowColumn("weights", "weights", (np.float16,), ndim=3, optional=True),
        RowColumn("lookahead", "lookahead", (np.uint8, np.uint16), ndim=4, optional=True),
    )
}
"""Every column of a row by its name, in the order of the files."""


@dataclass(frozen=True, slots=True, eq=False)
class RoutingBatch:
    """Rows of one domain, all of them complete: every layer of every row is filled.

    A batch that was read with ``columns=`` has those columns alone; another one raises
    `InvalidValueError` when it is asked for. ``batch[rows]`` takes a slice, mask or index array.

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
    step : ndarray of uint32, shape [T], or None
        The engine's step (forward pass) that computed the row: rows of one step shared a batch.
        Unique within a run and rank; None where it is not known.

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
    step: npt.NDArray[np.uint32] | None = None
    _rows: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check(len(self.request_index))

    @classmethod
    def of_columns(
        cls,
        domain: str,
        request_ids: tuple[str, ...],
        *,
        rows: int | None = None,
        **columns: npt.NDArray[Any] | None,
    ) -> RoutingBatch:
        """A batch of some columns alone, named as the attributes are.

        `rows` says how many rows it has where every column is None.
        """
        batch = cls.__new__(cls)
        for name, value in (("domain", domain), ("request_ids", request_ids), *columns.items()):
            object.__setattr__(batch, name, value)
        if rows is None:
            rows = next((len(values) for values in columns.values() if values is not None), 0)
        batch._check(rows)
        return batch

    def __getattr__(self, name: str) -> Any:
        # Only called for what this batch has not.
        for column in ROW_COLUMNS.values():
            if name == column.field:
                raise InvalidValueError(
                    f"{name}: these rows were read without it; name {column.name!r} in columns="
                )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def columns(self) -> dict[str, npt.NDArray[Any] | None]:
        """The columns that this batch has, by attribute; None where rows lack an optional one."""
        found = {}
        for column in ROW_COLUMNS.values():
            with suppress(InvalidValueError):
                found[column.field] = getattr(self, column.field)
        return found

    def _check(self, rows: int) -> None:
        object.__setattr__(self, "_rows", rows)
        present = self.columns()
        for column in ROW_COLUMNS.values():
            if (values := present.get(column.field)) is None:
                continue
            if values.dtype not in column.dtypes:
                expected = " or ".join(np.dtype(dtype).name for dtype in column.dtypes)
                raise InvalidTypeError(f"{column.field}: expected {expected}, got {values.dtype}")
            if values.ndim != column.ndim or len(values) != rows:
                raise InvalidValueError(
                    f"{column.field}: expected {column.ndim} dimensions and {rows} rows, "
                    f"got shape {values.shape}"
                )
        experts, weights, lookahead = map(present.get, ("experts", "weights", "lookahead"))
        if experts is None:
            return
        if weights is not None and weights.shape != experts.shape:
            raise InvalidValueError(f"weights: expected shape {experts.shape}, got {weights.shape}")
        if lookahead is not None and lookahead.dtype != experts.dtype:
            raise InvalidTypeError(f"lookahead: expected {experts.dtype}, got {lookahead.dtype}")

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        here = ", ".join(name for name, values in self.columns().items() if values is not None)
        return f"<RoutingBatch of {len(self):,} rows of {self.domain}: {here}>"

    def __getitem__(self, rows: Any) -> RoutingBatch:
        """The rows that a slice, mask or index array names, with the columns that are here."""
        chosen = {
            name: None if values is None else values[rows]
            for name, values in self.columns().items()
        }
        count = len(np.empty(len(self), bool)[rows])
        return RoutingBatch.of_columns(self.domain, self.request_ids, rows=count, **chosen)


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
    absent = {"weights": not weights, "lookahead": lookahead is None}
    fields = [
        pa.field(column.name, column.arrow_type(shape, lookahead), nullable=column.nullable)
        for column in ROW_COLUMNS.values()
        if not absent.get(column.name)
    ]
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
