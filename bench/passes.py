"""How often is each column of a run decoded by `report`, `hop_accuracy` and `verify`?

    python bench/passes.py
    python bench/passes.py RUN --baseline DIR --rounds 3

Each task runs in a process of its own, in which the methods of pyarrow's reader count the rows that
they decode. A figure is decoded rows over rows of the run: 1.00 is one pass. `DIR` is another
checkout of this repository with its extension built (``git worktree add DIR REVISION``, then
``tools/dev-build.sh`` there); both sides take turns, and must give the same results. Time and peak
memory are those of the quickest round; time is that of the task, without the imports.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
STUDY = HERE / "study" / "tiny-humaneval-gsm8k"
COLUMNS = (
    "request_id", "position", "token_id", "phase", "step", "experts", "weights", "lookahead"
)  # fmt: skip


def count_decoding(decoded: Counter[str]) -> None:
    """Have pyarrow's reader add the rows that it decodes of token files, by column."""
    import pyarrow.parquet as pq

    def note(file: pq.ParquetFile, part: Any) -> None:
        if "experts" in file.schema_arrow.names:
            for name in part.schema.names:
                decoded[name] += part.num_rows

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: pq.ParquetFile, *args: Any, **more: Any) -> Any:
            found = method(self, *args, **more)
            note(self, found)
            return found

        return call

    def counted_batches(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        @functools.wraps(method)
        def call(self: pq.ParquetFile, *args: Any, **more: Any) -> Iterator[Any]:
            for batch in method(self, *args, **more):
                note(self, batch)
                yield batch

        return call

    for name in ("read", "read_row_group", "read_row_groups"):
        setattr(pq.ParquetFile, name, counted(getattr(pq.ParquetFile, name)))
    pq.ParquetFile.iter_batches = counted_batches(pq.ParquetFile.iter_batches)


def report(run: Path) -> Any:
    from routestats.report import analyse_run, to_dict, write_report

    analysis = analyse_run(run)
    with tempfile.TemporaryDirectory() as folder:
        write_report(analysis, Path(folder) / "report.html")
    return to_dict(analysis)


def hop_accuracy(run: Path) -> Any:
    import routestats as rs

    train, test = rs.Trace.open(run).split(test=0.2, seed=0)
    rows = rs.stats.hop_accuracy(train, test).to_table().to_pylist()
    return sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)


def verify(run: Path) -> Any:
    import routestats as rs

    return {check.name: [check.ok, check.detail] for check in rs.verify(run).checks}


TASKS: dict[str, Callable[[Path], Any]] = {
    "report": report,
    "hop_accuracy": hop_accuracy,
    "verify": verify,
}


def measure(task: str, run: Path) -> dict[str, Any]:
    """Decoded rows, seconds, peak memory and result of one task, in this process."""
    import routestats as rs

    decoded: Counter[str] = Counter()
    count_decoding(decoded)
    start = time.perf_counter()
    result = TASKS[task](run)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = len(rs.Trace.open(run))
    return {
        "columns": {name: decoded[name] / rows for name in COLUMNS if decoded[name]},
        "seconds": seconds,
        "peak_mib": peak,
        "result": result,
        "code": str(Path(rs.__file__).parents[2]),
    }


def in_process(task: str, run: Path, code: Path) -> dict[str, Any]:
    paths = os.pathsep.join([str(code / "python"), str(code / "tools")])
    done = subprocess.run(
        [sys.executable, __file__, str(run), "--one", task],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert Path(found["code"]) == code, f"{task}: expected the code of {code}, ran {found['code']}"
    return found


def differences(ours: Any, theirs: Any, name: str = "") -> Iterator[str]:
    """Names of what the baseline has too, and has otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in theirs:
            yield from differences(ours.get(key), theirs[key], f"{name}.{key}".lstrip("."))
    elif ours != theirs:
        yield name or "rows"


def compare(task: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    different = list(differences(ours["result"], theirs["result"]))
    print(f"{task}: results: {'equal' if not different else 'differ in ' + ', '.join(different)}")
    # A report also holds what a corrected statistic says; its tests answer for that.
    assert task == "report" or not different, f"{task}: differs in {different}"


def show(task: str, sides: dict[str, dict[str, Any]]) -> None:
    print(f"\n{task:<14}" + "".join(f"{name:>12}" for name in sides))
    columns = [c for c in COLUMNS if any(c in side["columns"] for side in sides.values())]
    for column in columns:
        cells = (side["columns"].get(column, 0.0) for side in sides.values())
        print(f"  {column:<12}" + "".join(f"{cell:12.2f}" for cell in cells))
    totals = [sum(side["columns"].values()) for side in sides.values()]
    print(f"  {'all':<12}" + "".join(f"{total:12.2f}" for total in totals))
    for name in ("seconds", "peak_mib"):
        print(f"  {name:<12}" + "".join(f"{side[name]:12.1f}" for side in sides.values()))


def best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several rounds of one side: the quickest time and the smallest peak."""
    return {
        **rounds[0],
        "seconds": min(one["seconds"] for one in rounds),
        "peak_mib": min(one["peak_mib"] for one in rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=STUDY)
    parser.add_argument("--baseline", type=Path, help="another checkout, built")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=TASKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.run)))
        return
    code = {"now": HERE} | ({"baseline": args.baseline.resolve()} if args.baseline else {})
    found: dict[str, dict[str, Any]] = {}
    for task in args.tasks:
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in code}
        for number in range(args.rounds):
            for name in list(code) if number % 2 == 0 else list(code)[::-1]:
                rounds[name].append(in_process(task, args.run, code[name]))
        found[task] = {name: best(some) for name, some in rounds.items()}
        show(task, found[task])
        if args.baseline:
            compare(task, found[task]["now"], found[task]["baseline"])
    if args.baseline:
        sums = {
            name: sum(sum(found[task][name]["columns"].values()) for task in found) for name in code
        }
        print(f"\nall tasks: {sums['now']:.2f} passes over a column, {sums['baseline']:.2f} before")
    if args.json:
        for sides in found.values():
            for side in sides.values():
                del side["result"], side["code"]
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
