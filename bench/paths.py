"""Path frequencies beside what people use today: full paths, set paths, all n-grams.

- **top-1 full paths**: ``numpy.unique`` of rows as void items, and pandas, polars and duckdb
  grouping by integer columns. Packing ids into 64-bit columns is inside everybody's time, ours too;
  the baselines' is vectorised and as narrow as it can be.
- **set paths**: polars, grouping by columns of the sorted ids (``numpy.sort`` inside) or, at E = 8,
  of one mask byte per layer.
- **all n-grams**: for every start layer ``pandas.factorize`` of (group so far, next choice), layer
  by layer. It is timed at a smaller number of tokens, and ours at the same.

- **cold**: ours, called for the first time in a fresh process, so that all memory that it fills has
  to be faulted in, beside the best baseline as it is timed otherwise. (Later calls reuse memory
  that the process keeps.)

Everyone finds the number of distinct paths and the counts of the 100 most frequent ones (n-grams:
of the most frequent one). All results are checked to be equal before anything is timed, and ours
against the NumPy reference on a smaller trace. Exit status 1 if a result differs.

    python bench/paths.py --shape mixtral --tokens 1000000 --json FILE
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from _compare import Row, chosen_shapes, compare, parser, print_rows, seconds, write_rows
from _workload import REPETITION, Ids, Shape, make_trace
from routestats.counts import count_ngrams, count_paths
from routestats.counts.device.choice import choose_threads
from routestats.counts.reference import paths as reference_paths

TOP = 100
REFERENCE_TOKENS = 3_000
NGRAM_TOKENS = 200_000
# Nanoseconds per token (n-grams: per token and window) of the best baseline at 1 million tokens and
# low repetition, on a quiet Zen 3 with 2 threads.
QUIET_TOP1 = {"mixtral": 308.0, "qwen3": 505.0, "dsv3": 403.0}
QUIET_SET = {"mixtral": 660.0, "qwen3": 5350.0, "dsv3": 10_000.0}
QUIET_NGRAM = {"mixtral": 53.0, "qwen3": 79.0}

Columns = list[npt.NDArray[np.uint64]]
Found = tuple[int, list[int]]  # distinct, the largest counts
Grouping = Callable[[Ids], Found]


# --- keys ---


def byte_columns(rows: npt.NDArray[Any]) -> Columns:
    """[T, n] bytes as columns of eight."""
    words = -(-rows.shape[1] // 8)
    padded = np.zeros((len(rows), 8 * words), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return [np.ascontiguousarray(column) for column in padded.view(np.uint64).T]


def octal_columns(rows: npt.NDArray[Any]) -> Columns:
    """[T, n] ids below 8 as columns of sixteen, 3 bits each."""
    packed = []
    for word in byte_columns(rows):
        word = (word | word >> np.uint64(5)) & np.uint64(0x003F003F003F003F)
        word = (word | word >> np.uint64(10)) & np.uint64(0x00000FFF00000FFF)
        packed.append((word | word >> np.uint64(20)) & np.uint64(0xFFFFFF))
    if len(packed) % 2:
        packed.append(np.zeros_like(packed[0]))
    return [
        low | high << np.uint64(24) for low, high in zip(packed[::2], packed[1::2], strict=True)
    ]


def top1_columns(experts: Ids, shape: Shape) -> Columns:
    rows = np.ascontiguousarray(experts[:, :, 0])
    return octal_columns(rows) if shape.E <= 8 else byte_columns(rows)


def set_columns(experts: Ids, shape: Shape) -> Columns:
    if shape.E <= 8:
        bits = np.left_shift(np.uint8(1), experts)
        return byte_columns(np.bitwise_or.reduce(bits, axis=2))
    return byte_columns(np.sort(experts, axis=2).reshape(len(experts), -1))


# --- baselines ---


def with_unique(experts: Ids) -> Found:
    rows = np.ascontiguousarray(experts[:, :, 0])
    items = rows.view(f"V{rows.shape[1]}").ravel()
    counts = np.unique(items, return_counts=True)[1]
    return len(counts), largest(counts)


def with_pandas(columns: Columns) -> Found:
    import pandas as pd

    frame = pd.DataFrame({f"k{i}": column for i, column in enumerate(columns)})
    counts = frame.groupby(list(frame.columns), sort=False).size()
    return len(counts), largest(counts.to_numpy())


def with_polars(columns: Columns) -> Found:
    import polars as pl

    frame = pl.DataFrame({f"k{i}": column for i, column in enumerate(columns)})
    counts = frame.group_by(frame.columns).len()
    return len(counts), counts.top_k(TOP, by="len")["len"].sort(descending=True).to_list()


def with_duckdb(columns: Columns) -> Found:
    import duckdb

    names = [f"k{i}" for i in range(len(columns))]
    # duckdb scans a dict of arrays without copying it.
    given = dict(zip(names, columns, strict=True))
    with duckdb.connect() as connection:
        connection.execute(f"set threads={choose_threads(None)}")
        connection.execute("set enable_progress_bar=false")
        keys = ", ".join(names)
        connection.execute(
            f"create temp table counts as select count(*) n from given group by {keys}"
        )
        ((distinct,),) = connection.execute("select count(*) from counts").fetchall()
        best = connection.execute(f"select n from counts order by n desc limit {TOP}").fetchall()
    del given
    return distinct, [n for (n,) in best]


def largest(counts: npt.NDArray[Any]) -> list[int]:
    kept = counts if len(counts) <= TOP else np.partition(counts, len(counts) - TOP)[-TOP:]
    return sorted((int(n) for n in kept), reverse=True)


def with_factorize(experts: Ids, shape: Shape) -> tuple[list[int], list[int]]:
    import pandas as pd

    layers = np.ascontiguousarray(experts[:, :, 0].T).astype(np.int64)
    distinct, most = [], []
    for start in range(shape.L):
        group = np.zeros(len(experts), np.int64)
        for layer in range(start, shape.L):
            group, known = pd.factorize(group * shape.E + layers[layer])
            distinct.append(len(known))
            most.append(int(np.bincount(group).max()))
    return distinct, most


# --- ours ---


def ours(experts: Ids, shape: Shape, kind: str) -> Found:
    counts = count_paths(experts, kind, top=TOP, num_experts=shape.E)
    return counts.distinct, counts.counts.tolist()


def our_ngrams(experts: Ids, shape: Shape, top: int = 1) -> tuple[list[int], list[int]]:
    counts = count_ngrams(experts, top, num_experts=shape.E)
    distinct, most = [], []
    for start in range(shape.L):
        distinct += counts.distinct[start, : shape.L - start].tolist()
        most += counts._counts[start, : shape.L - start, 0].tolist()
    return distinct, most


def check_reference(experts: Ids, shape: Shape) -> None:
    for kind in ("top1", "set"):
        expected = reference_paths.path_counts(experts, kind, 0, shape.L)
        counts = count_paths(experts, kind, top=len(expected), num_experts=shape.E)
        rows = [tuple(row.ravel().tolist()) for row in counts.paths]
        require(list(zip(rows, counts.counts.tolist(), strict=True)) == expected, kind, shape)
    ngrams = count_ngrams(experts, TOP, num_experts=shape.E)
    for start, length in ((0, shape.L), (3, 4), (shape.L - 1, 1), (5, shape.L - 9)):
        expected = reference_paths.path_counts(experts, "top1", start, length)
        paths, times = ngrams.most_frequent(start, length)
        rows = [tuple(row) for row in paths.tolist()]
        same = list(zip(rows, times.tolist(), strict=True)) == expected[:TOP]
        require(same and ngrams.distinct[start, length - 1] == len(expected), "n-grams", shape)


def require(same: bool, name: str, shape: Shape) -> None:
    if not same:
        sys.exit(f"paths: {name} differs, {shape}")


# --- what is timed ---


def one_claim(
    claim: str,
    shape: Shape,
    repetition: str,
    experts: Ids,
    kind: str,
    baselines: Mapping[str, Grouping],
    quiet: float | None,
    rounds: int,
) -> list[Row]:
    expected = ours(experts, shape, kind)
    for name, baseline in baselines.items():
        require(baseline(experts) == expected, name, shape)
    rows = compare(
        claim,
        shape,
        repetition,
        len(experts),
        lambda: ours(experts, shape, kind),
        {name: partial(baseline, experts) for name, baseline in baselines.items()},
        rounds=rounds,
        increments=len(experts),
    )
    # What is known of a quiet machine is the best baseline's time.
    best = min(range(len(rows)), key=lambda i: rows[i].baseline_s)
    if quiet is not None:
        taken = rows[best].ns_per_increment
        assert taken is not None
        void = taken > 1.2 * quiet
        rows[best] = replace(rows[best], quiet_ns=quiet, void=void)
    print(
        f"  best baseline {rows[best].baseline}: {rows[best].ratio:.1f}x"
        f"{'  VOID' if rows[best].void else ''}"
    )
    words = key_words(shape, kind)
    print_floor(rows[0].ours_s, experts.nbytes, expected[0] * (8 * words + 8 + 16))
    return rows


# What a fresh process runs: the trace is read first, and a small count loads what is loaded lazily.
FIRST_CALL = """
import sys, time
import numpy as np
from routestats.counts import count_paths
file, kind, num_experts, top = sys.argv[1:]
experts = np.load(file)
count_paths(experts[:10], kind, top=int(top), num_experts=int(num_experts))
start = time.perf_counter()
counts = count_paths(experts, kind, top=int(top), num_experts=int(num_experts))
print(time.perf_counter() - start, counts.distinct)
"""


def first_calls(
    experts: Ids, shape: Shape, timed: Mapping[str, list[Row]], rounds: int
) -> list[Row]:
    """Rows of ours in fresh processes; `timed` holds the rows of each kind, ours warm."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experts.npy"
        np.save(file, experts)
        for kind, warm in timed.items():
            best = min(warm, key=lambda row: row.baseline_s)
            spent = []
            for _ in range(rounds):
                command = [
                    sys.executable,
                    "-c",
                    FIRST_CALL,
                    str(file),
                    kind,
                    str(shape.E),
                    str(TOP),
                ]
                found = subprocess.run(command, check=True, capture_output=True, text=True)
                spent.append(float(found.stdout.split()[0]))
            ratios = [best.baseline_s / s for s in spent]
            low, _, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
            rows.append(
                replace(
                    best,
                    claim=best.claim.replace("full ", "") + ", cold",
                    ours_s=statistics.median(spent),
                    ratio=statistics.median(ratios),
                    ratio_low=low,
                    ratio_high=high,
                )
            )
    print_rows(rows)
    return rows


def key_words(shape: Shape, kind: str) -> int:
    if kind == "top1":
        bits = (shape.E - 1).bit_length()
        return -(-shape.L // (64 // (8 if bits == 7 else bits)))
    return -(-shape.L * (shape.E if shape.E <= 8 * shape.K else 8 * shape.K) // 64)


@cache
def nanoseconds_per_byte() -> tuple[float, float]:
    """Of a thread that reads, and of one that copies, far more than the caches hold."""
    source = np.ones(64 << 20, np.uint8).view(np.uint64)
    target = np.empty_like(source)
    read_s = min(seconds(lambda: np.bitwise_or.reduce(source)) for _ in range(5))
    copy_s = min(seconds(lambda: np.copyto(target, source)) for _ in range(5))
    return read_s / source.nbytes * 1e9, copy_s / source.nbytes * 1e9


def print_floor(spent: float, read: int, written: int) -> None:
    """The trace read once, and each distinct path's key, count and slots written once."""
    to_read, to_copy = nanoseconds_per_byte()
    floor = (read * to_read + written * to_copy) / choose_threads(None) / 1e9
    print(
        f"  floor: {read / 1e6:.0f} MB read, {written / 1e6:.0f} MB written: {floor * 1e3:.1f} ms "
        f"at {1 / to_read:.0f} and {1 / to_copy:.0f} GB/s per thread; "
        f"reached {floor / spent:.0%} of it",
        flush=True,
    )


def bench(shape: Shape, repetition: str, tokens: int, ngram_tokens: int, rounds: int) -> list[Row]:
    experts = make_trace(shape, tokens, repetition=repetition)
    check_reference(experts[:REFERENCE_TOKENS], shape)
    comparable = tokens == 1_000_000 and repetition == "low"

    def packed(group: Callable[[Columns], Found], pack: Callable[..., Columns]) -> Grouping:
        return lambda ids: group(pack(ids, shape))

    first_choices = one_claim(
        "top-1 full paths",
        shape,
        repetition,
        experts,
        "top1",
        {
            "numpy.unique": with_unique,
            "pandas group-by": packed(with_pandas, top1_columns),
            "polars group-by": packed(with_polars, top1_columns),
            "duckdb group-by": packed(with_duckdb, top1_columns),
        },
        QUIET_TOP1.get(shape.name) if comparable else None,
        rounds,
    )
    sets = one_claim(
        "set paths",
        shape,
        repetition,
        experts,
        "set",
        {"polars group-by": packed(with_polars, set_columns)},
        QUIET_SET.get(shape.name) if comparable else None,
        rounds,
    )
    rows = first_choices + sets
    rows += first_calls(experts, shape, {"top1": first_choices, "set": sets}, rounds)
    part = experts[:ngram_tokens]
    name = "pandas.factorize"
    require(with_factorize(part, shape) == our_ngrams(part, shape), name, shape)
    windows = shape.L * (shape.L + 1) // 2
    found = compare(
        "all n-grams",
        shape,
        repetition,
        len(part),
        lambda: our_ngrams(part, shape),
        {name: lambda: with_factorize(part, shape)},
        rounds=min(rounds, 2),
        increments=len(part) * windows,
        quiet_ns={name: QUIET_NGRAM[shape.name]} if shape.name in QUIET_NGRAM else None,
    )
    # Per step and token: a symbol, an order and a length read, the latter two written and read.
    moved = len(part) * shape.L
    print_floor(found[0].ours_s * choose_threads(None), moved * (6 + 6), moved * 5)
    return rows + found


def main() -> int:
    made = parser(__doc__.splitlines()[0])
    made.add_argument("--repetition", choices=[*REPETITION, "all"], default="all")
    made.add_argument("--ngram-tokens", type=int, default=NGRAM_TOKENS)
    given = made.parse_args()
    tokens, ngram_tokens, rounds = given.tokens, given.ngram_tokens, given.rounds
    if given.quick:
        tokens, ngram_tokens, rounds = min(tokens, 50_000), min(ngram_tokens, 2_000), 1
    rows = []
    levels = list(REPETITION) if given.repetition == "all" else [given.repetition]
    for shape in chosen_shapes(given.shape):
        for repetition in levels:
            rows += bench(shape, repetition, tokens, min(ngram_tokens, tokens), rounds)
    write_rows(given.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
