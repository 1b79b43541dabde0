"""Every way of counting pairs on the CPU, per shape and instruction set: the table that the choice
in csrc/pairs/pair_method.cpp is made from, printed in the form that the file holds.

First every way is checked: against the NumPy reference on a few tokens, and against ``direct`` on
all of them. Then all take turns, on one thread; a number is the least of the rounds, as whatever
else runs on the machine can only add to it. Below the table stands where the rule's choice takes
more than 1.15 times the fastest.

    python bench/pair_methods.py [--layers 8] [--experts 128] [--json FILE]
    python bench/pair_methods.py --quick
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from _compare import cpu_model, seconds
from _workload import Ids, Shape, make_trace
from routestats import _core
from routestats.counts._plan import PairPlan, check_hops
from routestats.counts.reference import pairs as reference

HEADING = f"//      E   K              direct   {'bitmap':<19}  {'lists':<19}   block_lists"
Hops = str | tuple[int, ...]
HOPS: dict[str, Hops] = {"all": "all", "adjacent": (0, 1)}
# Layers, experts, top-k.
GRID = [
    *((8, E, K) for E, K in [(8, 2), (16, 4), (32, 4), (64, 1), (64, 6), (64, 8)]),
    *((8, E, K) for E, K in [(128, 1), (128, 8), (160, 6), (192, 8), (256, 1), (256, 8)]),
    *((8, E, K) for E, K in [(384, 8), (512, 10)]),
    *[(32, 8, 2), (48, 128, 8), (58, 256, 8)],
]
QUICK_GRID = [(8, 8, 2), (8, 64, 6), (8, 128, 8), (8, 192, 8)]
QUICK_TOKENS = 4096
CHECKED_TOKENS = 300
MOST_BITMAP_EXPERTS = 64  # all E^2 cells of more take minutes, and win nowhere
MUCH = 1.15  # times the fastest: more than repetitions differ by


@dataclass(frozen=True)
class Row:
    """One way of counting one shape; ``ns`` is per token and layer pair, on one thread.

    ``chosen`` says whether the library takes it for this shape and instruction set.
    """

    layers: int
    experts: int
    slots: int
    hops: str
    pairs: int
    method: str
    isa: str
    tokens: int
    ns: float
    chosen: bool
    rounds: int
    cpu: str
    version: str


class Counter:
    """All ways of counting one trace into tables that are made once."""

    def __init__(self, experts: Ids, shape: Shape, hops: Hops) -> None:
        self.experts, self.shape = experts, shape
        self.pairs = PairPlan(check_hops(hops, shape.L), shape.L).pairs
        self._expert = np.zeros((shape.L, shape.E), np.uint64)
        self._tiles = np.zeros((len(self.pairs), shape.E, shape.E), np.uint64)

    def run(self, method: str, isa: str, tokens: int | None = None) -> None:
        _core.count_pairs(
            self.experts[:tokens],
            num_experts=self.shape.E,
            counted_slots=self.shape.K,
            layer_pairs=self.pairs,
            expert=self._expert,
            pairs=self._tiles,
            threads=1,
            method=method,
            isa=isa,
        )

    def tables(
        self, method: str, isa: str, tokens: int | None = None
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Counts of experts and pairs, in memory that the next call changes."""
        self._expert[:], self._tiles[:] = 0, 0
        self.run(method, isa, tokens)
        return self._expert, self._tiles


def ways(shape: Shape) -> list[tuple[str, str]]:
    """Methods and instruction sets to measure; ``direct`` is the same in all of them."""
    isas = _core.build_info()["isas"]
    methods = [m for m in _core.PAIR_METHODS if m != "direct"]
    if shape.E > MOST_BITMAP_EXPERTS:
        methods.remove("bitmap")
    return [("direct", isas[-1]), *((method, isa) for method in methods for isa in isas)]


def check(counter: Counter) -> None:
    """Exit unless all ways give the same, and what the reference gives."""
    shape, few = counter.shape, counter.experts[:CHECKED_TOKENS]
    _, tiles = counter.tables("direct", "portable", len(few))
    for place in {0, len(counter.pairs) // 2, len(counter.pairs) - 1}:
        src, dst = counter.pairs[place]
        expected = reference.pair_counts(few, shape.E, src, dst, pairing="any")
        if not np.array_equal(tiles[place], expected):
            sys.exit(f"pair_methods: {shape}: direct and the reference differ at {src}, {dst}")
    expert, pairs = (table.copy() for table in counter.tables("direct", "portable"))
    for method, isa in ways(shape):
        got_expert, got_pairs = counter.tables(method, isa)
        if not (np.array_equal(got_expert, expert) and np.array_equal(got_pairs, pairs)):
            sys.exit(f"pair_methods: {shape}: {method} ({isa}) and direct differ")


def measure(shape: Shape, claim: str, tokens: int, rounds: int) -> list[Row]:
    counter = Counter(make_trace(shape, tokens), shape, HOPS[claim])
    check(counter)
    runs: dict[tuple[str, str], Callable[[], object]] = {
        way: partial(counter.run, *way) for way in ways(shape)
    }
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for way, run in runs.items():
            least[way] = min(least[way], seconds(run))
    num_pairs = len(counter.pairs)
    return [
        Row(
            layers=shape.L,
            experts=shape.E,
            slots=shape.K,
            hops=claim,
            pairs=num_pairs,
            method=method,
            isa=isa,
            tokens=tokens,
            ns=spent / (tokens * num_pairs) * 1e9,
            chosen=method == chosen(shape, num_pairs, isa),
            rounds=rounds,
            cpu=cpu_model(),
            version=_core.build_info()["version"],
        )
        for (method, isa), spent in least.items()
    ]


def chosen(shape: Shape, pairs: int, isa: str) -> str:
    return _core.choose_pair_method(
        layers=shape.L, experts=shape.E, slots=shape.K, pairs=pairs, isa=isa
    )


def table_line(rows: Sequence[Row]) -> str:
    """One line of the table: a shape's numbers, of each method one for each instruction set."""

    def numbers(method: str) -> str:
        found = [row.ns for row in rows if row.method == method]
        return " /".join(f"{ns:5.1f}" for ns in found)

    first = rows[0]
    shape = f"{first.experts:>3}  {first.slots:>2}   {first.hops:<9}"
    return (
        f"//    {shape}  {numbers('direct'):>7}   {numbers('bitmap'):<19}  "
        f"{numbers('lists'):<19}   {numbers('block_lists')}"
    ).rstrip()


def lost(rows: Sequence[Row]) -> list[str]:
    """Where the rule's choice is much slower than the fastest, per instruction set."""
    lines = []
    (direct,) = (row for row in rows if row.method == "direct")
    for isa in _core.build_info()["isas"]:
        times = {row.method: row.ns for row in rows if row.isa == isa} | {"direct": direct.ns}
        best = min(times, key=times.__getitem__)
        shape = Shape("", direct.layers, direct.experts, direct.slots)
        taken = chosen(shape, direct.pairs, isa)
        if taken in times and times[taken] > MUCH * times[best]:
            lines.append(
                f"L={shape.L} E={shape.E} K={shape.K} {direct.hops}, {isa}: {taken} is taken, "
                f"{best} is {times[taken] / times[best]:.2f} times faster"
            )
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].replace("\n", " "))
    options.add_argument("--layers", type=int, help="only shapes of so many layers")
    options.add_argument("--experts", type=int, help="only shapes of so many experts")
    options.add_argument("--hops", choices=[*HOPS, "both"], default="both")
    options.add_argument("--tokens", type=int, default=32_768)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="smaller, in under a minute")
    options.add_argument("--json", type=Path, help="write the rows here")
    arguments = options.parse_args()
    grid, tokens, rounds = GRID, arguments.tokens, arguments.rounds
    if arguments.quick:
        grid, tokens, rounds = QUICK_GRID, min(tokens, QUICK_TOKENS), 1
    grid = [
        (L, E, K)
        for L, E, K in grid
        if arguments.layers in (None, L) and arguments.experts in (None, E)
    ]
    if not grid:
        options.error("no such shape in the grid")
    claims = list(HOPS) if arguments.hops == "both" else [arguments.hops]
    print(f"{cpu_model()}, {tokens:,} tokens, {' / '.join(_core.build_info()['isas'])}")
    rows: list[Row] = []
    slow: list[str] = []
    layers = None
    for L, E, K in grid:
        if layers != L:
            print(f"// {L} layers\n{HEADING}")
            layers = L
        for claim in claims:
            measured = measure(Shape(f"{L}x{E}x{K}", L, E, K), claim, tokens, rounds)
            print(table_line(measured), flush=True)
            rows += measured
            slow += lost(measured)
    for line in slow:
        print(f"the rule loses at {line}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
