"""What steps left and printed, as figures; what is wrong with it, as `StepFailed`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_hour.steps import Figures, Place, StepFailed

OLDEST_DRIVER = 580  # of the CUDA that torch's wheels for vLLM are built with


def machine(output: str) -> Figures:
    """The driver, and whether it is new enough."""
    found = re.search(r"Driver Version: *(\d+)[\d.]*", output)
    if found is None:
        raise StepFailed("nvidia-smi names no driver")
    if int(found[1]) < OLDEST_DRIVER:
        raise StepFailed(f"driver {found[1]}; vLLM's wheels expect {OLDEST_DRIVER} or newer")
    return {"driver": int(found[1])}


def torch_sees(output: str) -> Figures:
    """The last line is JSON; torch must see a device."""
    facts = last_json(output)
    if not facts.get("available"):
        raise StepFailed(f"torch {facts.get('torch')} sees no CUDA device")
    return facts


def kernels(output: str) -> Figures:
    """`routestats info --json`: the kernels must be built, and find their device."""
    facts = json.loads(output[output.index("{") : output.rindex("}") + 1])
    said = str(facts.get("cuda"))
    if not re.search(r"; \d+ x \S", said):  # devices, by number and name
        raise StepFailed(f"cuda: {said}")
    names = ("version", "cuda", "tap", "torch", "vllm", "capture")
    return {name: facts.get(name) for name in names}


def tests(output: str) -> Figures:
    """pytest's last line; at least one test must have run."""
    line = next((x for x in reversed(output.splitlines()) if re.search(r"\d+ passed", x)), "")
    if not line:
        raise StepFailed("no test passed")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", line)}
    return {word: counts[word] for word in ("passed", "failed", "skipped") if word in counts}


def captured(place: Place, run: Path, requests: int | None = None) -> Callable[[str], Figures]:
    """What a run holds. On a GPU the rows must have come through the ring in its memory."""

    def read(output: str) -> Figures:
        info = json.loads((run / "run.json").read_text())
        settings, totals, engine = info["settings"], info["totals"], info["engine"]
        figures = {
            "rows": totals["rows"],
            "requests": totals["requests"],
            "duplicate_rows": totals.get("duplicate_rows"),
            "drain_cpu_ms": totals.get("drain_cpu_ms"),
            "settings": settings,
            "eager": engine.get("eager"),
            "dtype": engine.get("dtype"),
            "runner": "V2" if "Using V2 Model Runner" in output else "V1, or not told",
            "seconds_of_engine": _start_seconds(output),
        }
        if not info.get("complete"):
            raise StepFailed(f"the run is incomplete: {info.get('error')}")
        if requests is not None and totals["requests"] != requests:
            raise StepFailed(f"expected {requests} requests, got {totals['requests']}")
        if place.on_gpu and settings.get("tap") != "DeviceTap":
            raise StepFailed(f"tap: expected DeviceTap, got {settings.get('tap')}")
        return figures

    return read


def _start_seconds(output: str) -> float | None:
    found = re.search(r"init engine .*? took ([\d.]+) s", output)
    return float(found[1]) if found else None


def fidelity(figures: Path) -> Callable[[str], Figures]:
    """Of bench/capture_fidelity.py's cases: rows, and how many differ."""

    def read(output: str) -> Figures:
        kept = (
            "rows",
            "matched",
            "near_tie",
            "after_near_tie",
            "wrong",
            "max_weight_error",
            "note",
        )
        cases = json.loads(figures.read_text())
        return {case["case"]: {name: case[name] for name in kept} for case in cases}

    return read


def last_json(output: str) -> Figures:
    """The last line that is JSON."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                found: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            return found
    raise StepFailed("it printed no result")


def engine(output: str) -> Figures:
    """Of one engine of bench/gpu_vllm.py: all it found, and which back ends vLLM says it took."""
    backends = sorted(set(re.findall(r"Using ['\"]?(\w+)['\"]? \w*\s?(?:MoE|backend)", output)))
    return {**last_json(output), "backends": backends}


def rows_of(output: str) -> Figures:
    """Every line that is JSON."""
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not rows:
        raise StepFailed("it printed no result")
    drain = [line for line in output.splitlines() if line.startswith("drain thread")]
    return {"batches": rows, "drain": drain}


def sanitizer(output: str) -> Figures:
    """compute-sanitizer's own count of errors, beside pytest's line."""
    errors = [int(number) for number in re.findall(r"ERROR SUMMARY: (\d+) error", output)]
    hazards = [int(number) for number in re.findall(r"RACECHECK SUMMARY: (\d+) hazard", output)]
    if not errors + hazards:
        raise StepFailed("compute-sanitizer printed no summary")
    if any(errors + hazards):
        raise StepFailed(f"{sum(errors)} errors, {sum(hazards)} hazards")
    return {**tests(output), "errors": 0}
