"""Arrays of routing, checked and put into the form of a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.arguments import check_integers
from routestats.errors import InvalidTypeError, InvalidValueError, one_of
from routestats.schema import DEFAULT_DOMAIN, PHASES, RequestRecord, request_schema
from routestats.shape import RouteShape
from routestats.trace._order import first_disorder
from routestats.trace._selection import as_names
from routestats.trace._sources import ArraySource


def source_from_arrays(
    experts: npt.ArrayLike,
    *,
    num_experts: int,
    request_ids: Sequence[Any] | npt.NDArray[Any] | None,
    positions: npt.ArrayLike | None,
    token_ids: npt.ArrayLike | None,
    weights: npt.ArrayLike | None,
    phase: Sequence[str] | None,
    step: npt.ArrayLike | None,
    domain: str | Mapping[str, str],
    groups: Mapping[str, str] | None,
    layer_ids: Sequence[int] | None,
) -> ArraySource:
    ids, shape = _experts(experts, num_experts)
    rows = len(ids)
    gate = None if weights is None else _weights(weights, ids)
    names, codes = _requests(request_ids, rows)
    where = (
        _count_positions(codes) if positions is None else _integers("positions", positions, rows)
    )
    tokens = (
        np.full(rows, -1, np.int32)
        if token_ids is None
        else _integers("token_ids", token_ids, rows)
    )
    phases = _phases(phase, rows)
    domains = [domain if isinstance(domain, str) else _lookup(domain, name) for name in names]
    group_of = {} if groups is None else groups
    if not isinstance(group_of, Mapping):
        raise InvalidTypeError(f"groups: expected a mapping from request to group, got {groups!r}")
    layers = (
        tuple(range(shape.num_layers))
        if layer_ids is None
        else check_integers("layer_ids", layer_ids, 0)
    )
    if len(layers) != shape.num_layers:
        raise InvalidValueError(f"layer_ids: expected {shape.num_layers}, got {len(layers)}")
    kinds = sorted(set(domains)) or [DEFAULT_DOMAIN if not isinstance(domain, str) else domain]
    kind_of_row = np.array([kinds.index(d) for d in domains], np.int32)[codes]
    order = np.argsort(kind_of_row, kind="stable")
    ends = np.searchsorted(kind_of_row[order], np.arange(len(kinds)), side="right").tolist()
    spans = {kind: slice(*span) for kind, span in zip(kinds, pairwise([0, *ends]), strict=True)}
    columns = {
        "request_id": codes,
        "position": where,
        "token_id": tokens,
        "phase": phases,
        "step": None if step is None else _integers("step", step, rows, np.uint32),
        "experts": ids,
        "weights": gate,
    }
    arrays = {name: None if values is None else values[order] for name, values in columns.items()}
    records = _records(names, codes, where, phases, domains, group_of)
    table = pa.Table.from_pylist(records, schema=request_schema())
    return ArraySource(shape, layers, arrays, tuple(names), spans, table)


def _experts(experts: npt.ArrayLike, num_experts: int) -> tuple[npt.NDArray[Any], RouteShape]:
    ids = np.asarray(experts)
    if not np.issubdtype(ids.dtype, np.integer):
        raise InvalidTypeError(f"experts: expected integers, got {ids.dtype}")
    if ids.ndim != 3:
        raise InvalidValueError(f"experts: expected shape [T, L, K], got {list(ids.shape)}")
    shape = RouteShape(ids.shape[1], num_experts, ids.shape[2])
    bad = (ids < 0) | (ids >= num_experts)
    if bad.any():
        t, layer, k = np.argwhere(bad)[0]
        raise InvalidValueError(
            f"experts[{t}, {layer}, {k}] = {ids[t, layer, k]}, but num_experts is {num_experts}"
        )
    return np.ascontiguousarray(ids, dtype=shape.id_dtype), shape


def _weights(weights: npt.ArrayLike, ids: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    gate = np.asarray(weights)
    if not np.issubdtype(gate.dtype, np.floating):
        raise InvalidTypeError(f"weights: expected floats, got {gate.dtype}")
    if gate.shape != ids.shape:
        raise InvalidValueError(
            f"weights: expected shape {list(ids.shape)}, got {list(gate.shape)}"
        )
    disorder = first_disorder(ids, gate)
    if disorder is not None:
        t, layer, k = disorder
        raise InvalidValueError(
            f"weights[{t}, {layer}, {k}] is larger than the one before it; expected descending "
            "order, as routestats.trace.sort_by_weight makes it"
        )
    return gate.astype(np.float16)


def _requests(
    request_ids: Sequence[Any] | npt.NDArray[Any] | None, rows: int
) -> tuple[list[str], npt.NDArray[np.int32]]:
    if request_ids is None:
        return ["request-0"], np.zeros(rows, np.int32)
    given = np.asarray(request_ids)
    if given.shape != (rows,):
        raise InvalidValueError(f"request_ids: expected {rows}, one per row, got {given.shape}")
    names, codes = np.unique(given, return_inverse=True)
    return [str(name) for name in names.tolist()], codes.astype(np.int32)


def _count_positions(codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """0, 1, 2, ... within each request, in the order of the rows."""
    order = np.argsort(codes, kind="stable")
    in_order = codes[order]
    starts = np.flatnonzero(np.r_[True, in_order[1:] != in_order[:-1]]) if len(codes) else codes
    lengths = np.diff(np.r_[starts, len(codes)])
    positions = np.empty(len(codes), np.int32)
    positions[order] = np.arange(len(codes)) - np.repeat(starts, lengths)
    return positions


def _integers(
    name: str, values: npt.ArrayLike, rows: int, dtype: type[np.integer[Any]] = np.int32
) -> npt.NDArray[Any]:
    given = np.asarray(values)
    if not np.issubdtype(given.dtype, np.integer):
        raise InvalidTypeError(f"{name}: expected integers, got {given.dtype}")
    if given.shape != (rows,):
        raise InvalidValueError(f"{name}: expected shape ({rows},), got {given.shape}")
    limits = np.iinfo(dtype)
    if rows and (given.min() < limits.min or given.max() > limits.max):
        raise InvalidValueError(
            f"{name}: expected values of {np.dtype(dtype)}, got {given.min()}..{given.max()}"
        )
    return given.astype(dtype)


def _phases(phase: Sequence[str] | None, rows: int) -> npt.NDArray[np.uint8]:
    if phase is None:
        return np.zeros(rows, np.uint8)
    phase = as_names("phase", phase)
    if len(phase) != rows:
        raise InvalidValueError(f"phase: expected {rows}, one per row, got {len(phase)}")
    for name in phase:
        if name not in PHASES:
            raise InvalidValueError(f"phase: {one_of(PHASES, name)}")
    return np.array([PHASES.index(name) for name in phase], np.uint8)


def _lookup(domains: Mapping[str, str], request: str) -> str:
    if not isinstance(domains, Mapping):
        raise InvalidTypeError(f"domain: expected a name or a mapping of them, got {domains!r}")
    if request not in domains:
        raise InvalidValueError(f"domain: request {request!r} has none")
    if not isinstance(domains[request], str):
        raise InvalidTypeError(f"domain: expected names, got {domains[request]!r} of {request!r}")
    return domains[request]


def _records(
    names: list[str],
    codes: npt.NDArray[np.int32],
    positions: npt.NDArray[np.int32],
    phases: npt.NDArray[np.uint8],
    domains: list[str],
    groups: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Records that agree with the rows: what is not known is taken from them."""
    if len(codes) == 0:
        return []
    first = np.full(len(names), np.iinfo(np.int32).max, np.int32)
    last = np.full(len(names), -1, np.int32)
    np.minimum.at(first, codes, positions)
    np.maximum.at(last, codes, positions)
    prefill = np.bincount(codes, weights=phases == 0, minlength=len(names)).astype(int)
    records = []
    for i, name in enumerate(names):
        group = groups.get(name, name)
        if not isinstance(group, str):
            raise InvalidTypeError(f"groups: expected names, got {group!r} of request {name!r}")
        prompt = int(first[i]) + int(prefill[i])
        record = RequestRecord(
            request_id=name,
            domain=domains[i],
            group=group,
            prompt_tokens=prompt,
            output_tokens=int(last[i]) + 2 - prompt,
            cached_tokens=int(first[i]),
        )
        records.append({field: getattr(record, field) for field in record.__slots__})
    return records
