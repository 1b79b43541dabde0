"""What does it cost to tell an engine's real rows from the others? Processor time per row.

    python bench/assembler.py
    python bench/assembler.py --baseline DIR      another checkout, built; 37a2103 or later

The drain thread does this beside the engine, and mostly with the interpreter's lock. Its processor
time (``time.thread_time``) bounds how long it has the lock, whoever else uses the machine. Kinds of
steps:

- decode: every request has one row and no drafts;
- turnover: decode, but in every step 1 of 64 requests ends and another begins, with 64 rows;
- drafts: four rows, three of them drafts, of which none to all are accepted;
- prefill: chunks of 512 rows.

Rows are those of Mixtral-8x7B, in pieces of at least 2,048, as the recorder takes them. Code and
baseline run in processes of their own, which take turns. They must give the same rows before they
are timed. Exits 1 where decode takes more than 1 us a row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parents[1]
LAYERS, EXPERTS, TOP_K = 32, 8, 2
PIECE_ROWS = 2048
BOUND_US = 1.0
KINDS = ("decode", "turnover", "drafts", "prefill")
REQUESTS = (1, 32, 256, 1024)
BOUND_REQUESTS = (32, 256, 1024)


class Engine:
    """What an engine says of steps of one kind."""

    def __init__(self, kind: str, requests: int) -> None:
        self.kind, self.random = kind, np.random.default_rng(0)
        self.begun = 0
        self.at: dict[str, int] = {}
        self.first = [self._begin(16) for _ in range(requests)]

    def _begin(self, prompt: int) -> tuple[str, int]:
        name = f"{self.begun}-{self.begun:08x}"
        self.begun += 1
        self.at[name] = 0
        return name, prompt

    def begin(self) -> dict[str, Any]:
        """The step with the prompts."""
        return self._step(dict(self.first), new=self.first)

    def next(self) -> dict[str, Any]:
        if self.kind == "prefill":
            return self._step(dict.fromkeys(self.at, 512))
        if self.kind == "drafts":
            return self._step(dict.fromkeys(self.at, 4), drafts=3)
        rows = dict.fromkeys(self.at, 1)
        if self.kind == "decode":
            return self._step(rows)
        finished = list(self.at)[: max(len(self.at) // 64, 1)]
        for name in finished:
            del self.at[name], rows[name]
        new = [self._begin(64) for _ in finished]
        return self._step({**rows, **dict(new)}, new=new, finished=finished)

    def _step(
        self,
        rows: dict[str, int],
        *,
        new: list[tuple[str, int]] | None = None,
        finished: list[str] | None = None,
        drafts: int = 0,
    ) -> dict[str, Any]:
        starts = np.array([self.at[name] for name in rows])
        counts = np.fromiter(rows.values(), np.int64)
        total = int(counts.sum())
        before = np.repeat(np.cumsum(counts) - counts, counts)
        accepted = self.random.integers(0, drafts + 1, len(rows))
        for name, count, more in zip(rows, counts.tolist(), accepted.tolist(), strict=True):
            self.at[name] += count - drafts + more
        return {
            "request_ids": list(rows),
            "counts": counts.tolist(),
            "positions": (np.repeat(starts, counts) + np.arange(total) - before).astype(np.int32),
            "token_ids": self.random.integers(5, 32_000, total).astype(np.int32),
            "drafts": dict.fromkeys(rows, drafts) if drafts else {},
            "new": new or [],
            "finished": finished or [],
        }


class Assembler:
    """The assembler of the checkout that runs, whatever its age."""

    def __init__(self) -> None:
        from routestats.engines import _assembler

        self.code = _assembler
        self.target: Any = _assembler.RowAssembler()

    def step(self, said: dict[str, Any]) -> Any:
        code: Any = self.code
        if not hasattr(code, "StepRows"):
            raise SystemExit(f"{code.__file__}: expected commit 37a2103 or a later one")
        new = [
            code.NewRequest(name, "d", np.arange(rows, dtype=np.int32), frozenset({2}), 1_000_000)
            for name, rows in said["new"]
        ]
        return code.StepRows(**{**said, "new": new})

    def take_in(self, steps: list[Any], experts: Any, weights: Any) -> list[Any]:
        """What the drain thread does with a piece that the ring gave."""
        if hasattr(self.target, "add_steps"):
            columns = {
                "positions": np.concatenate([step.positions for step in steps]),
                "token_ids": np.concatenate([step.token_ids for step in steps]),
                "experts": experts,
                "weights": weights,
            }
            self.target.add_steps(steps, columns)
        else:
            start = 0
            for step in steps:
                part = slice(start, start + step.rows)
                self.target.add(step, experts[part], weights[part])
                start += step.rows
        batches: list[Any] = self.target.take_batches()
        return batches


def pieces(kind: str, requests: int, rows: int) -> Iterator[list[dict[str, Any]]]:
    """Steps, in pieces of at least `PIECE_ROWS` rows; the first has the prompts."""
    engine = Engine(kind, requests)
    piece = [engine.begin()]
    yield piece
    done = 0
    while done < rows:
        piece, size = [], 0
        while size < PIECE_ROWS:
            piece.append(engine.next())
            size += len(piece[-1]["positions"])
        done += size
        yield piece


def measure(kind: str, requests: int, rows: int, *, digest: bool) -> dict[str, Any]:
    """Processor time per row that was run, and what came of them."""
    assembler, content = Assembler(), hashlib.sha256()
    random = np.random.default_rng(1)
    spent, ran = 0.0, 0
    for number, said in enumerate(pieces(kind, requests, rows)):
        steps = [assembler.step(one) for one in said]
        size = sum(len(one["positions"]) for one in said)
        experts = random.integers(0, EXPERTS, (size, LAYERS, TOP_K), np.uint8)
        weights = np.zeros((size, LAYERS, TOP_K), np.float16)
        start = time.thread_time()
        batches = assembler.take_in(steps, experts, weights)
        took = time.thread_time() - start
        if number:  # the prompts come before
            spent, ran = spent + took, ran + size
        for batch in batches if digest else ():
            names = [batch.request_ids[i] for i in batch.request_index]
            content.update("\n".join([batch.domain, *names]).encode())
            for column in ("positions", "token_ids", "phase", "experts", "weights"):
                content.update(getattr(batch, column).tobytes())
    records = assembler.target.take_records()
    return {"us": spent / ran * 1e6, "digest": [content.hexdigest(), len(records)]}


def serve() -> None:
    """Measure what each line of the input asks for."""
    for line in sys.stdin:
        print(json.dumps(measure(**json.loads(line))), flush=True)


class Side:
    """A process that runs a checkout's code."""

    def __init__(self, code: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env={**os.environ, "PYTHONPATH": str(code / "python")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, **asked: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a process ended; its message stands above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def figures_of(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"us": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def compare(sides: dict[str, Side], kind: str, requests: int, rounds: int) -> dict[str, Any]:
    rows = max(16_384, 4 * requests)
    asked = {"kind": kind, "requests": requests, "rows": rows}
    digests = [side.measure(**asked, digest=True)["digest"] for side in sides.values()]
    assert all(digest == digests[0] for digest in digests), f"{kind} {requests}: rows differ"
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            times[name].append(sides[name].measure(**asked, digest=False)["us"])
    found: dict[str, Any] = {"kind": kind, "requests": requests, "rounds": rounds}
    return found | {name: figures_of(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", type=Path, help="another checkout, built")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--requests", nargs="+", type=int, default=list(REQUESTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    code = {"now": HERE} | ({"baseline": args.baseline.resolve()} if args.baseline else {})
    sides = {name: Side(path) for name, path in code.items()}
    found = []
    for kind in args.kinds:
        for requests in args.requests:
            row = compare(sides, kind, requests, args.rounds)
            found.append(row)
            times = "   ".join(
                f"{name} {row[name]['us']:7.3f} [{row[name]['low']:.3f}, {row[name]['high']:.3f}]"
                for name in sides
            )
            print(f"{kind:<9}{requests:>6} requests: us a row: {times}", flush=True)
    for side in sides.values():
        side.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    slow = [
        row
        for row in found
        if row["kind"] == "decode"
        and row["requests"] in BOUND_REQUESTS
        and row["now"]["us"] > BOUND_US
    ]
    for row in slow:
        print(
            f"decode, {row['requests']} requests: expected at most {BOUND_US} us a row, "
            f"got {row['now']['us']}",
            file=sys.stderr,
        )
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
