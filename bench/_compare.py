"""Timing ours beside named baselines, so that one run of a busy machine can be believed.

Methods take turns, round by round, and a ratio is the median of the rounds' own ratios. Whoever
calls has checked before that all of them compute the same.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from _workload import SHAPES, Shape
from routestats import _core
from routestats.counts.device.choice import choose_threads

Method = Callable[[], object]

# Before each timed run: thread pools of the method before go on spinning or freeing for a while.
REST_S = 0.05


@dataclass(frozen=True)
class Row:
    """One claim against one baseline: medians of seconds, and the ratio with its quartiles.

    ``ns_per_increment`` is the baseline's; `quiet_ns` what it took on a quiet Zen 3 with 2 threads.
    A baseline that is more than 20 % slower than that is no fair one, and the row is ``void``.
    """

    claim: str
    shape: str
    repetition: str
    tokens: int
    ours_s: float
    baseline: str
    baseline_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    ns_per_increment: float | None
    quiet_ns: float | None
    void: bool
    threads: int
    cpu: str
    isa: str
    version: str


def seconds(method: Method) -> float:
    time.sleep(REST_S)
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def compare(
    claim: str,
    shape: Shape,
    repetition: str,
    tokens: int,
    ours: Method,
    baselines: Mapping[str, Method],
    *,
    rounds: int,
    increments: float | None = None,
    quiet_ns: Mapping[str, float] | None = None,
    warm: Collection[str] = (),
) -> list[Row]:
    """Time `ours` and each baseline `rounds` times in turn, after one run of each to warm up.

    The baselines named in `warm` have run before, if on less, and take too long for one more run.

    A baseline's name begins with its package, whose version the row states. `increments` is the
    work of one run, in the unit of `quiet_ns`.
    """
    methods = {"": ours, **baselines}
    for name, method in methods.items():
        if name not in warm:
            method()
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            times[name].append(seconds(method))
    rows = []
    for name in baselines:
        ratios = [b / o for b, o in zip(times[name], times[""], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if rounds > 1 else ratios * 3
        spent = statistics.median(times[name])
        per = None if increments is None else spent / increments * 1e9
        quiet = None if quiet_ns is None else quiet_ns.get(name)
        rows.append(
            Row(
                claim=claim,
                shape=shape.name,
                repetition=repetition,
                tokens=tokens,
                ours_s=statistics.median(times[""]),
                baseline=name,
                baseline_s=spent,
                ratio=statistics.median(ratios),
                ratio_low=low,
                ratio_high=high,
                rounds=rounds,
                ns_per_increment=per,
                quiet_ns=quiet,
                void=per is not None and quiet is not None and per > 1.2 * quiet,
                threads=choose_threads(None),
                cpu=cpu_model(),
                isa=_core.build_info()["isas"][-1],
                version=_version(name),
            )
        )
    print_rows(rows)
    return rows


def print_rows(rows: Iterable[Row]) -> None:
    for row in rows:
        spread = f"[{row.ratio_low:.1f}, {row.ratio_high:.1f}]"
        per = "" if row.ns_per_increment is None else f"{row.ns_per_increment:9.3f} ns/increment"
        print(
            f"{row.claim:<22}{row.shape:<9}{row.repetition:<5}{row.tokens:>10,}"
            f"{row.ours_s * 1e3:>11.1f} ms   {row.baseline:<26}{row.baseline_s * 1e3:>12.1f} ms"
            f"{row.ratio:>9.1f}x {spread:<18}{per}{'  VOID' if row.void else ''}",
            flush=True,
        )


def write_rows(path: Path | None, rows: Sequence[Row]) -> None:
    """A JSON list of rows; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def parser(description: str, *, tokens: int = 1_000_000) -> argparse.ArgumentParser:
    """The options that every benchmark of this kind takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    made.add_argument("--tokens", type=int, default=tokens)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--quick", action="store_true", help="smaller, in under a minute")
    made.add_argument("--json", type=Path, help="write the rows here")
    return made


def chosen_shapes(name: str) -> list[Shape]:
    return list(SHAPES.values()) if name == "all" else [SHAPES[name]]


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str:
    package = name.split()[0].split(".")[0]
    return f"{package} {metadata.version(package)}"
