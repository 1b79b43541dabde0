"""How concentrated are the paths through the layers, beyond what single layers explain?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routestats.counts import PathCounts, count_paths
from routestats.errors import InvalidValueError
from routestats.result import Result
from routestats.shape import RouteShape
from routestats.stats._base.checks import (
    MOST,
    check_integer,
    check_integers,
    check_pairs,
    check_trace,
)
from routestats.stats._base.contingency import xlog2x
from routestats.stats._base.estimate import Floats
from routestats.stats._base.row_order import rows_in_order
from routestats.trace import Trace

Codes = npt.NDArray[np.integer[Any]]

ALL = "all"
CORNERS = 200  # points of a coverage curve that are kept


class Concentration(NamedTuple):
    """How paths are spread; of a null, means over its simulations.

    Attributes
    ----------
    distinct : float
        Number of distinct paths.
    entropy_bits : float
        Plug-in entropy of the paths; log2(T) if all differ. It is biased downward where most paths
        are seen once: compare it with the nulls, which have as many tokens.
    coverage : ndarray, shape [len(top)]
        Share of tokens on the N most frequent paths.
    """

    distinct: float
    entropy_bits: float
    coverage: Floats


@dataclass(frozen=True, slots=True, eq=False)
class WindowPaths(Result):
    """Paths of one domain through one window of layers.

    Attributes
    ----------
    domain : str
        A domain, or ``all``.
    start, length : int
        The window, in layers 0..L-1.
    tokens : int
    observed : Concentration
    independent : Concentration
        What independent layers with the same loads give.
    markov : Concentration
        What a first-order Markov chain over the layers with the same counts of adjacent pairs (of
        experts, or of sets) gives.
    curve_paths, curve_share : ndarray
        The observed coverage curve: share of tokens on the N most frequent paths, at up to 200 N
        evenly spread on a logarithmic scale, exactly.
    top_paths : ndarray, shape [n, length] or [n, length, K]
        The 10 most frequent paths.
    top_tokens : ndarray of uint64, shape [n]
    """

    domain: str
    start: int
    length: int
    tokens: int
    observed: Concentration
    independent: Concentration
    markov: Concentration
    curve_paths: npt.NDArray[np.int64]
    curve_share: Floats
    top_paths: npt.NDArray[Any]
    top_tokens: npt.NDArray[np.uint64]

    @property
    def sources(self) -> dict[str, Concentration]:
        """What was observed, and the two nulls beside it."""
        return {
            "observed": self.observed,
            "independent": self.independent,
            "markov": self.markov,
        }

    def to_table(self) -> pa.Table:
        """One row per source (observed, independent, markov); coverages as a list."""
        return pa.Table.from_pylist(
            [
                {**row, "coverage": found.coverage.tolist()}
                for row, found in zip(self.rows(), self.sources.values(), strict=True)
            ]
        )

    def rows(self) -> list[dict[str, Any]]:
        """Of each source what every table of windows has."""
        return [
            {
                "domain": self.domain,
                "start": self.start,
                "length": self.length,
                "source": name,
                "tokens": self.tokens,
                "distinct": float(found.distinct),
                "entropy_bits": found.entropy_bits,
            }
            for name, found in self.sources.items()
        ]

    def summary(self) -> str:
        """One line of what is, and one of each null."""
        lines = [f"{self.domain}, {self.length} layers from {self.start}, {self.tokens:,} tokens:"]
        for name, found in self.sources.items():
            lines.append(
                f"  {name:<12}{found.distinct:>12,.0f} distinct, {found.entropy_bits:6.2f} bits"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class Paths(Result):
    """Concentration of paths; made by `paths`.

    Attributes
    ----------
    shape : RouteShape
    layer_ids : tuple of int, length L
    kind : str
        ``top1`` or ``set``.
    top : tuple of int
        The N of the coverages.
    simulations, seed : int
        Of the nulls.
    windows : tuple of WindowPaths
        For each window all tokens first, then each domain where there are several.
    """

    shape: RouteShape
    layer_ids: tuple[int, ...]
    kind: str
    top: tuple[int, ...]
    simulations: int
    seed: int
    windows: tuple[WindowPaths, ...]

    def to_table(self) -> pa.Table:
        """One row per domain, window and source (observed, independent, markov)."""
        rows = []
        for part in self.windows:
            for row, found in zip(part.rows(), part.sources.values(), strict=True):
                shares = zip(self.top, found.coverage.tolist(), strict=True)
                rows.append({**row, **{f"share_of_top_{n}": share for n, share in shares}})
        return pa.Table.from_pylist(rows)

    def summary(self) -> str:
        """Per window and domain one line of what is, and one of each null."""
        lines = [f"{self.kind} paths, {self.shape}, nulls of {self.simulations} simulations"]
        for part in self.windows:
            last = part.start + part.length - 1
            lines.append(
                f"{part.domain}, layers {self.layer_ids[part.start]} to {self.layer_ids[last]}, "
                f"{part.tokens:,} tokens:"
            )
            for name, found in part.sources.items():
                shares = ", ".join(
                    f"top {n} {share:.2%}"
                    for n, share in zip(self.top, found.coverage, strict=True)
                )
                lines.append(
                    f"  {name:<12}{found.distinct:>12,.0f} distinct, {found.entropy_bits:6.2f} "
                    f"bits; {shares}"
                )
        return "\n".join(lines)


def paths(
    trace: Trace,
    *,
    kind: str = "top1",
    top: Sequence[int] = (1, 10, 100, 1000),
    windows: Sequence[tuple[int, int]] | None = None,
    simulations: int = 5,
    seed: int = 0,
    threads: int | None = None,
) -> Paths:
    """How few paths carry how many tokens, beside what simpler routing would give.

    Parameters
    ----------
    trace : Trace
        Its experts are held in memory, for the nulls.
    kind : {"top1", "set"}
        Paths of first choices, or of sets of K choices.
    top : sequence of int
        The N for which the share of tokens on the N most frequent paths is given.
    windows : sequence of (start, length), optional
        By default the full depth.
    simulations : int
        Simulations of each null, at least 1; means are reported.
    seed : int
    threads : int, optional

    Returns
    -------
    Paths

    Raises
    ------
    InvalidTypeError
        If `trace` is no trace, or a number no integer.
    InvalidValueError
        If the trace has no tokens, a window or kind does not exist, a set names an expert twice,
        the kind is ``top1`` and the trace does not know the order of its slots, or a number is out
        of range.

    Notes
    -----
    Both nulls permute what the tokens did, so that they have as many tokens and exactly the same
    loads: independence permutes each layer by itself; the Markov chain permutes each layer among
    the simulated tokens that are in the same state one layer before, which keeps every count of
    adjacent pairs.
    """
    trace = check_trace(trace)
    simulations = check_integer("simulations", simulations, 1, MOST)
    seed = check_integer("seed", seed, 0)
    top = check_integers("top", top, 1)
    chosen = [(0, trace.shape.num_layers)] if windows is None else check_pairs("windows", windows)
    parts = [(ALL, trace)]
    if len(trace.domains) > 1:
        parts += [(name, trace.filter(domain=name)) for name in trace.domains]
    found = []
    for start, length in chosen:
        for number, (name, part) in enumerate(parts):
            if len(part) == 0:
                raise InvalidValueError(f"trace: domain {name} has no tokens")
            counts = count_paths(part, kind, start, length, 10, threads=threads)
            # Of its own, so that a window's draws do not depend on which others are asked for.
            rng = np.random.default_rng([seed, counts.start, counts.length, number])
            codes = _layer_codes(part.experts[:, counts.start :][:, : counts.length], kind)
            # Draws do not depend on the trace's order. Each layer stays in one piece of memory.
            codes = np.take(codes, rows_in_order(part), axis=1)
            found.append(_window(name, counts, codes, top, simulations, rng, threads))
    return Paths(
        shape=trace.shape,
        layer_ids=tuple(trace.layer_ids),
        kind=kind,
        top=top,
        simulations=simulations,
        seed=seed,
        windows=tuple(found),
    )


def _window(
    domain: str,
    counts: PathCounts,
    codes: Codes,
    top: tuple[int, ...],
    simulations: int,
    rng: np.random.Generator,
    threads: int | None,
) -> WindowPaths:
    corners, covered = counts.coverage_curve()
    places = np.unique(np.geomspace(1, counts.distinct, CORNERS).round().astype(np.int64))
    return WindowPaths(
        domain=domain,
        start=counts.start,
        length=counts.length,
        tokens=counts.tokens,
        observed=_concentration(counts, top),
        independent=_mean(
            [_simulated(_independent(codes, rng), top, threads) for _ in range(simulations)]
        ),
        markov=_mean([_simulated(_markov(codes, rng), top, threads) for _ in range(simulations)]),
        curve_paths=places,
        curve_share=np.interp(places, corners, covered) / counts.tokens,
        top_paths=counts.paths,
        top_tokens=counts.counts,
    )


def _concentration(counts: PathCounts, top: tuple[int, ...]) -> Concentration:
    occurring, number = counts.frequencies()
    spread = float((xlog2x(occurring) * number).sum())
    return Concentration(
        distinct=counts.distinct,
        entropy_bits=max(0.0, float(np.log2(counts.tokens)) - spread / counts.tokens),
        coverage=np.array([counts.coverage(n) for n in top]),
    )


def _mean(found: list[Concentration]) -> Concentration:
    return Concentration(
        distinct=float(np.mean([each.distinct for each in found])),
        entropy_bits=float(np.mean([each.entropy_bits for each in found])),
        coverage=np.mean([each.coverage for each in found], axis=0),
    )


def _layer_codes(window: npt.NDArray[Any], kind: str) -> Codes:
    """What a token is at each layer, as a number from 0: [length, T].

    In the smallest unsigned type that fits; NumPy sorts those of 8 and 16 bits in linear time.
    """
    codes = np.empty((window.shape[1], len(window)), np.int64)
    for layer in range(window.shape[1]):
        if kind == "top1":
            codes[layer] = window[:, layer, 0]
        else:
            counted = np.sort(window[:, layer], axis=1)
            rows = np.ascontiguousarray(counted).view(
                np.dtype((np.void, counted.dtype.itemsize * counted.shape[1]))
            )
            codes[layer] = np.unique(rows.ravel(), return_inverse=True)[1]
    return codes.astype(np.min_scalar_type(codes.max()))


def _independent(codes: Codes, rng: np.random.Generator) -> Codes:
    return rng.permuted(codes, axis=1)


def _markov(codes: Codes, rng: np.random.Generator) -> Codes:
    """Tokens that change places with each other, at each layer with those in the same state."""
    simulated = np.empty_like(codes)
    simulated[0] = codes[0]
    for layer in range(1, len(codes)):
        # Both hold each state equally often, so that their orders by state correspond. The one is
        # shuffled within a state, by a stable sort of a permutation.
        shuffled = rng.permutation(codes.shape[1])
        givers = shuffled[np.argsort(codes[layer - 1][shuffled], kind="stable")]
        takers = np.argsort(simulated[layer - 1], kind="stable")
        simulated[layer, takers] = codes[layer][givers]
    return simulated


def _simulated(codes: Codes, top: tuple[int, ...], threads: int | None) -> Concentration:
    states = int(codes.max()) + 1
    if states > 65_536:  # more sets than ids of a path: two ids each
        codes = np.stack((codes >> 16, codes & 0xFFFF), axis=1).reshape(-1, codes.shape[1])
        states = 65_536
    ids = codes.T.astype(np.uint16)[:, :, None]
    return _concentration(count_paths(ids, top=0, num_experts=states, threads=threads), top)
