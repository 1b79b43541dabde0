"""The first hour on a GPU: everything that only a GPU can show, in the order of what fails first.

    make gpu-hour                         all of it
    make gpu-hour PIECE=3                 one of seven pieces of about ten minutes
    python tools/run_gpu_hour.py --items 3,4 --budget 540
    python tools/run_gpu_hour.py --device cpu     those items that vLLM's CPU engine can run

Results go to one folder: ``summary.md`` to read, ``summary.json``, ``logs.txt.gz``. A step that
fails stops no other. A step that stands in the folder is not run again, unless ``--again`` names
it or its item; one that was skipped is looked at anew. Exit status: 0 if no step failed, 1 if one
did, 2 for wrong use. Needs Python's own library alone; what steps need and do not find is told.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from gpu_hour.items import ITEMS, PIECES, steps_of, write_prompts
from gpu_hour.machine import Machine, built, look, output_of, search_path, site_of
from gpu_hour.process import run_commands
from gpu_hour.results import Results
from gpu_hour.steps import Outcome, Place, Step, StepFailed

ROOT = Path(__file__).resolve().parents[1]
RESERVE = 5.0  # seconds of a budget that are kept for writing down


def numbers(text: str) -> tuple[int, ...]:
    found = tuple(int(part) for part in text.split(",") if part.strip().isdecimal())
    if not found or not set(found) <= set(ITEMS):
        raise argparse.ArgumentTypeError(f"expected items of 1 to {len(ITEMS)}, got {text!r}")
    return found


def environment(place: Place, step: Step) -> dict[str, str]:
    """What a step's processes see: our build before everything else, and no settings of make."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL") and not name.startswith("ROUTESTATS_")
    }
    if place.on_gpu and built(place):
        paths = [str(site_of(place)), inherited.get("PYTHONPATH", "")]
        inherited["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return {**inherited, "PATH": search_path(), "PYTHONUNBUFFERED": "1", **step.environment}


def run_step(place: Place, step: Step, seconds: float) -> tuple[Outcome, str] | None:
    """Run a step for at most `seconds`; None if that was less than it may take, and not enough."""
    ended = run_commands(
        step.commands,
        timeout=min(step.timeout, seconds),
        environment=environment(place, step),
        folder=place.root,
    )
    if ended.code is None and seconds < step.timeout:
        return None
    figures, reason = {}, ""
    if ended.code is None:
        reason = f"it took more than {step.timeout} s"
    elif ended.code != 0:
        reason = f"exit status {ended.code}: {last_words(ended.output)}"
    try:
        figures = step.read(ended.output)
    except StepFailed as error:
        reason = reason or str(error)
    except Exception as error:  # what it should have left is not there
        reason = reason or f"no figures: {type(error).__name__}: {error}"
    outcome = Outcome("failed" if reason else "passed", round(ended.seconds, 1), reason, figures)
    return outcome, ended.output


def holds(place: Place, step: Step) -> bool:
    """Whether what a step made is still there, and not older than what it was made of."""
    return (
        not step.holds
        or subprocess.run(
            step.holds,
            cwd=place.root,
            env=environment(place, step),
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


def last_words(output: str) -> str:
    """The line that most likely says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for mark in ("FAILED", "Error", "error", "expected"):
        if found := [line for line in lines if mark in line]:
            return found[-1][:400]
    return lines[-1][:400] if lines else ""


def run(
    place: Place, machine: Machine, results: Results, items: Collection[int],
    again: Collection[str], budget: float,
) -> list[Step]:  # fmt: skip
    """Run what does not stand yet; the steps that the budget left over."""
    begin, left_over = time.monotonic(), []
    if machine.missing(("device",), place) is None:
        write_prompts(place)
    order = steps_of(place)
    for step in order:
        if step.item not in items:
            continue
        named = {step.key, str(step.item)} & set(again)
        if not named and results.stands(step) and holds(place, step):
            continue
        if (missing := machine.missing(step.needs, place)) is not None:
            outcome, output = Outcome("skipped", reason=missing), ""
        else:
            seconds = budget - (time.monotonic() - begin) - RESERVE
            waits = [key for key in step.after if key not in results.steps]
            print(f"{step.key} {step.title} ...", flush=True)
            done = None
            if not waits and seconds >= min(step.expected, step.timeout):
                done = run_step(place, step, seconds)
            if done is None:
                print("    left for another call", flush=True)
                left_over.append(step)
                continue
            outcome, output = done
            print(f"    {outcome.status}, {outcome.seconds:.0f} s {outcome.reason}", flush=True)
        results.record(step, outcome, output)
        results.write_page(results.page(ITEMS, order))
    return left_over


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=ROOT / "runs" / "gpu-hour", metavar="FOLDER"
    )
    parser.add_argument("--items", type=numbers, help="only these, e.g. 3,4")
    parser.add_argument("--piece", type=int, choices=PIECES, help="only the items of this piece")
    parser.add_argument(
        "--again", default="", help="items or steps to run though they stand: 3,7.4"
    )
    parser.add_argument(
        "--budget", type=float, default=86_400.0, metavar="S", help="seconds in all"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--layers", type=int, help="of the large models, where memory is small")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has vLLM")
    args = parser.parse_args()
    if args.items and args.piece:
        parser.error("--items: expected either that or --piece, got both")
    items = args.items or PIECES.get(args.piece, tuple(ITEMS))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    place = Place(
        root=ROOT,
        python=shutil.which(args.python) or args.python,
        device=args.device,
        work=ROOT / "build" / "gpu" / f"work-{args.device}",
        results=args.results.resolve(),
        layers=args.layers,
    )
    results = Results(place.results)
    machine = look(place.python)
    commit = output_of(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    results.describe(asdict(machine), commit=commit or "unknown", device=args.device)
    print(machine.render(), flush=True)
    left_over = run(place, machine, results, items, args.again.split(","), args.budget)
    page = results.page(ITEMS, steps_of(place))
    results.write_page(page)
    print(page[: page.index("## Steps")])
    if left_over:
        print("left over: " + ", ".join(step.key for step in left_over))
    print(f"all of it: {place.results / 'summary.md'}")
    failed = [s for s in steps_of(place) if results.status(s) == "failed" and s.item in items]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
