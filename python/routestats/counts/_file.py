"""Counts on disk: one ``.npz`` file of plain arrays and a JSON header; nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.counts._plan import PairPlan, check_hops, check_pairing
from routestats.errors import InvalidTypeError, InvalidValueError, TraceError
from routestats.shape import RouteShape

FORMAT = "routestats.counts"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What a file of counts holds; the fields are those of `RouteCounts`."""

    shape: RouteShape
    layer_ids: tuple[int, ...]
    pairing: str
    hops: tuple[int, ...]
    tokens: int
    expert: npt.NDArray[np.uint64]
    pairs: npt.NDArray[np.uint64]


def save(path: str | os.PathLike[str], stored: Stored) -> None:
    """Write beside `path` and rename, so that `path` is never half a file.

    Raises
    ------
    TraceError
        If it cannot be written.
    """
    target = Path(path)
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "num_layers": stored.shape.num_layers,
        "num_experts": stored.shape.num_experts,
        "top_k": stored.shape.top_k,
        "layer_ids": list(stored.layer_ids),
        "pairing": stored.pairing,
        "hops": list(stored.hops),
        "tokens": stored.tokens,
    }
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise TraceError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                header=np.array(json.dumps(header)),
                expert=stored.expert,
                pairs=stored.pairs,
            )
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp gives a file that only its owner can read
        Path(name).replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        if isinstance(error, OSError):
            raise TraceError(f"{target}: cannot be written: {error.strerror}") from error
        raise


def load(path: str | os.PathLike[str]) -> Stored:
    """Read a file of counts and check that it is consistent in itself.

    Raises
    ------
    TraceError
        If it is absent, damaged, of another kind or of a newer format.
    """
    try:
        # Opened here, because numpy.load forgets to close a file that it cannot read.
        with Path(path).open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile) or "header" not in arrays:
                raise TraceError(f"{path}: no file of routestats counts")
            header = json.loads(str(arrays["header"][()]))
            _check_format(path, header)
            expert, pairs = arrays["expert"], arrays["pairs"]
        stored = _from_header(header, expert, pairs)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise TraceError(f"{path}: no file of routestats counts, or damaged: {error}") from error
    _check_totals(path, stored)
    return stored


def _check_format(path: str | os.PathLike[str], header: Any) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TraceError(f"{path}: no file of routestats counts")
    if header.get("version") != FORMAT_VERSION:
        raise TraceError(
            f"{path}: expected format version {FORMAT_VERSION}, got {header.get('version')!r}"
        )


def _from_header(header: dict[str, Any], expert: Any, pairs: Any) -> Stored:
    shape = RouteShape(header["num_layers"], header["num_experts"], header["top_k"])
    hops = check_hops(header["hops"], shape.num_layers)
    layer_ids = tuple(int(i) for i in header["layer_ids"])
    if len(layer_ids) != shape.num_layers:
        raise InvalidValueError(f"layer_ids: expected {shape.num_layers}, got {len(layer_ids)}")
    side = shape.num_experts
    places = len(PairPlan(hops, shape.num_layers).pairs)
    for name, table, expected in (
        ("expert", expert, (shape.num_layers, side)),
        ("pairs", pairs, (places, side, side)),
    ):
        if table.dtype != np.uint64:
            raise InvalidTypeError(f"{name}: expected uint64, got {table.dtype}")
        if table.shape != expected:
            raise InvalidValueError(f"{name}: expected shape {expected}, got {table.shape}")
    return Stored(
        shape,
        layer_ids,
        check_pairing(header["pairing"]),
        hops,
        int(header["tokens"]),
        expert,
        pairs,
    )


def _check_totals(path: str | os.PathLike[str], stored: Stored) -> None:
    slots = 1 if stored.pairing == "top1" else stored.shape.top_k
    for name, totals, expected in (
        ("expert", stored.expert.sum(axis=1), stored.tokens * slots),
        ("pairs", stored.pairs.sum(axis=(1, 2)), stored.tokens * slots**2),
    ):
        if (totals != expected).any():
            got = int(totals[totals != expected][0])
            raise TraceError(f"{path}: {name}: expected to sum to {expected}, got {got}")
