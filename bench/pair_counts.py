"""Counting pairs of layers, pairing ``any``, beside everything that people use for it today.

Claims: ``all pairs`` (every source <= target) and ``adjacent`` (within a layer, and to the next).
A baseline that would take minutes at the asked number of tokens is run fully at fewer, and ours at
the same number beside it. Before anything is timed, our counts are checked against the NumPy
reference and every baseline against ours, cell by cell.

    python bench/pair_counts.py [--shape dsv3] [--claim adjacent] [--baseline numba] [--json FILE]
    python bench/pair_counts.py --scaling      # cost per token from 100 k to 10 million; memory
"""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np

from _compare import Row, chosen_shapes, compare, parser, print_rows, write_rows
from _pair_baselines import BASELINES, Pairs
from _pair_floor import print_floor
from _pair_scaling import measure_scaling
from _workload import REPETITION, Ids, Shape, make_trace
from routestats.counts import RouteCounts, count
from routestats.counts.reference import pairs as reference

CLAIMS: dict[str, str | tuple[int, ...]] = {"all pairs": "all", "adjacent": (0, 1)}
ADJACENT_BASELINES = ("numba prange", "numpy.bincount")
CHECKED_TOKENS = 300
QUICK_LAYERS, QUICK_TOKENS = 4, 10_000

# Seconds per million tokens on a quiet Zen 3 with 2 threads; the one-hot products' is the better of
# the two packages'.
QUIET_S = {
    ("all pairs", "mixtral"): {
        "numba prange": 1.81,
        "numpy.bincount": 32,
        "numpy one-hot matmul": 1.44,
        "torch one-hot matmul": 1.44,
        "scipy.sparse CSR.T @ CSR": 19,
        "polars group-by": 125,
        "pandas group-by": 312,
    },
    ("all pairs", "qwen3"): {
        "numba prange": 23.5,
        "numpy.bincount": 477,
        "numpy one-hot matmul": 545,
        "torch one-hot matmul": 545,
        "scipy.sparse CSR.T @ CSR": 700,
        "polars group-by": 5900,
        "pandas group-by": 7180,
    },
    ("all pairs", "dsv3"): {
        "numba prange": 47.4,
        "numpy.bincount": 676,
        "numpy one-hot matmul": 6480,
        "torch one-hot matmul": 6480,
        "scipy.sparse CSR.T @ CSR": 1730,
    },
    ("adjacent", "mixtral"): {"numba prange": 0.175},
    ("adjacent", "qwen3"): {"numba prange": 1.97},
    ("adjacent", "dsv3"): {"numba prange": 3.82},
}
# Most tokens of a baseline, and its rounds there: what is not named runs at all tokens.
SLOW = {
    "numpy.bincount": {"mixtral": 200_000, "qwen3": 200_000, "dsv3": 50_000},
    "numpy one-hot matmul": {"mixtral": 1_000_000, "qwen3": 10_000, "dsv3": 1_000},
    "torch one-hot matmul": {"mixtral": 1_000_000, "qwen3": 10_000, "dsv3": 1_000},
    "scipy.sparse CSR.T @ CSR": {"mixtral": 100_000, "qwen3": 10_000, "dsv3": 5_000},
    "polars group-by": {"mixtral": 20_000, "qwen3": 1_000, "dsv3": 500},
    "pandas group-by": {"mixtral": 10_000, "qwen3": 1_000, "dsv3": 500},
    "duckdb group-by": {"mixtral": 20_000, "qwen3": 1_000, "dsv3": 500},
}


def pairs_of(claim: str, shape: Shape) -> Pairs:
    claimed = CLAIMS[claim]
    hops = range(shape.L) if isinstance(claimed, str) else claimed
    return [(src, src + hop) for hop in hops for src in range(shape.L - hop)]


def ours(experts: Ids, shape: Shape, claim: str) -> RouteCounts:
    return count(experts, num_experts=shape.E, hops=CLAIMS[claim], pairing="any")


def check(experts: Ids, shape: Shape, claim: str, names: list[str]) -> None:
    """Exit unless a few tokens give the same everywhere."""
    few = experts[:CHECKED_TOKENS]
    pairs = pairs_of(claim, shape)
    counts = ours(few, shape, claim)
    for src, dst in (pairs[0], pairs[len(pairs) // 2], pairs[-1]):
        expected = reference.pair_counts(few, shape.E, src, dst, pairing="any")
        if not np.array_equal(counts.pair(src, dst), expected):
            sys.exit(f"pair_counts: ours and the reference differ at layers {src}, {dst}")
    for name in names:
        tiles = BASELINES[name](few, shape.E, pairs)
        for (src, dst), tile in zip(pairs, tiles, strict=True):
            if not np.array_equal(counts.pair(src, dst), tile):
                sys.exit(f"pair_counts: ours and {name} differ at layers {src}, {dst}")
    print(f"{claim}, {shape}: {len(names)} baselines equal to ours in {len(pairs)} pairs")


def measure(
    claim: str, shape: Shape, repetition: str, tokens: int, names: list[str], rounds: int
) -> list[Row]:
    experts = make_trace(shape, tokens, repetition=repetition)
    pairs = pairs_of(claim, shape)
    check(experts, shape, claim, names)
    rows = []
    for name in names:
        limit = SLOW.get(name, {}).get(shape.name, tokens)
        part = experts[: min(tokens, limit)]
        slow = rounds if len(part) == tokens else min(rounds, 3)
        increments = len(part) * len(pairs) * shape.K**2
        quiet = QUIET_S.get((claim, shape.name), {}).get(name)
        quiet_ns = None if quiet is None else quiet * 1e3 / (len(pairs) * shape.K**2)
        rows += compare(
            claim,
            shape,
            repetition,
            len(part),
            partial(ours, part, shape, claim),
            {name: partial(BASELINES[name], part, shape.E, pairs)},
            rounds=slow,
            increments=increments,
            quiet_ns=None if quiet_ns is None else {name: quiet_ns},
            warm=[name] if claim == "all pairs" else [],  # check() has run it
        )
    at_all = [row for row in rows if row.tokens == tokens]
    if at_all:
        print_floor(shape, pairs, tokens, min(row.ours_s for row in at_all))
    return rows


def merged(path: Path, rows: list[Row]) -> list[Row]:
    """`rows`, and those of the file that measure something else."""
    if not path.exists():
        return rows
    old = [Row(**row) for row in json.loads(path.read_text())]

    def key(row: Row) -> tuple[object, ...]:
        return row.claim, row.shape, row.repetition, row.baseline

    new = {key(row) for row in rows}
    return [row for row in old if key(row) not in new] + rows


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--claim", choices=[*CLAIMS, "all"], default="all")
    options.add_argument("--repetition", choices=[*REPETITION, "all"], default="low")
    options.add_argument("--baseline", help="only baselines whose name begins so")
    options.add_argument("--merge", action="store_true", help="keep other rows of the JSON file")
    options.add_argument("--scaling", action="store_true", help="cost per token, and memory")
    arguments = options.parse_args()
    shapes = chosen_shapes(arguments.shape)
    if arguments.scaling:
        measure_scaling(shapes, arguments.tokens, arguments.json)
        return
    tokens, rounds = arguments.tokens, arguments.rounds
    if arguments.quick:
        tokens, rounds = min(tokens, QUICK_TOKENS), 1
        shapes = [
            dataclasses.replace(shape, name=f"{shape.name}/{QUICK_LAYERS}", L=QUICK_LAYERS)
            for shape in shapes
        ]
    rows: list[Row] = []
    for claim in CLAIMS if arguments.claim == "all" else [arguments.claim]:
        names = [
            name
            for name in (ADJACENT_BASELINES if claim == "adjacent" else BASELINES)
            if name.startswith(arguments.baseline or "")
        ]
        for repetition in REPETITION if arguments.repetition == "all" else [arguments.repetition]:
            for shape in shapes:
                rows += measure(claim, shape, repetition, tokens, names, rounds)
    print("\nall of it:")
    print_rows(rows)
    if arguments.json and arguments.merge:
        rows = merged(arguments.json, rows)
    write_rows(arguments.json, rows)


if __name__ == "__main__":
    main()
