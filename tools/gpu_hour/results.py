"""The results folder: ``summary.json``, ``summary.md``, ``logs.txt.gz``, and what benches add."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_hour.steps import Outcome, Step

SUMMARY, PAGE, LOGS = "summary.json", "summary.md", "logs.txt.gz"
LOG_HEAD, LOG_TAIL = 64 << 10, 448 << 10  # bytes kept of what a step prints


class Results:
    """What is known so far; every step is written as soon as it ends.

    Parameters
    ----------
    folder : Path
        Made if it is not there; what stands in it already, stands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / SUMMARY
        self._document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.steps: dict[str, dict[str, Any]] = self._document.setdefault("steps", {})

    def describe(self, machine: dict[str, Any], **facts: str) -> None:
        """Which machine and which commit; a folder may hold several, one after the other."""
        sessions = self._document.setdefault("sessions", [])
        sessions.append({"at": _now(), **facts, "machine": machine})
        self._write()

    def status(self, step: Step) -> str | None:
        """What came of a step, or None where nothing has yet."""
        known = self.steps.get(step.key)
        return None if known is None else str(known["status"])

    def stands(self, step: Step) -> bool:
        """Whether the step was run, and need not be again."""
        return self.status(step) in ("passed", "failed")

    def record(self, step: Step, outcome: Outcome, output: str = "") -> None:
        """Write down what came of a step."""
        self.steps[step.key] = {
            "title": step.title,
            "command": " && ".join(" ".join(command) for command in step.commands),
            "at": _now(),
            **asdict(outcome),
        }
        if output:
            head = f"==== {step.key} {step.title}: {outcome.status} {outcome.reason}\n"
            # A gzip file may have members one behind the other: a kill spoils the last one at most.
            with gzip.open(self.folder / LOGS, "ab") as log:
                log.write((head + trimmed(output) + "\n").encode())
        self._write()

    def page(self, items: dict[int, str], order: Sequence[Step]) -> str:
        """The summary in Markdown: a table of items, then every step."""
        lines = ["# What ran", "", "| item | result | seconds |", "|---|---|---|"]
        for number, title in items.items():
            mine = [self.steps.get(step.key) for step in order if step.item == number]
            known = [step for step in mine if step is not None]
            seconds = sum(step["seconds"] for step in known)
            lines.append(f"| {number}. {title} | {verdict(mine)} | {seconds:.0f} |")
        lines += ["", "## Steps"]
        for step in order:
            known_step = self.steps.get(step.key)
            if known_step is None:
                lines += ["", f"### {step.key} {step.title}: not run yet"]
                continue
            status, reason = known_step["status"], known_step["reason"]
            lines += ["", f"### {step.key} {step.title}: {status}{f': {reason}' if reason else ''}"]
            if status != "skipped":
                lines += ["", f"{known_step['seconds']:.0f} s: `{known_step['command']}`"]
            if known_step["figures"]:
                lines += ["", "```json", json.dumps(known_step["figures"], indent=1), "```"]
        return "\n".join(lines) + "\n"

    def write_page(self, text: str) -> None:
        (self.folder / PAGE).write_text(text)

    def _write(self) -> None:
        path = self.folder / SUMMARY
        new = path.with_suffix(".tmp")
        new.write_text(json.dumps(self._document, indent=1, default=str) + "\n")
        new.replace(path)


def verdict(steps: Sequence[dict[str, Any] | None]) -> str:
    """One item's result from those of its steps, None for those that have none yet."""
    known = [step for step in steps if step is not None]
    counts = {
        name: sum(step["status"] == name for step in known)
        for name in ("passed", "failed", "skipped")
    }
    if len(known) < len(steps):
        counts["not run"] = len(steps) - len(known)
    present = {name: count for name, count in counts.items() if count}
    if list(present) == ["skipped"]:
        reasons = list(dict.fromkeys(step["reason"] for step in known))
        return f"skipped: {'; '.join(reasons)}"
    if len(present) == 1:
        return next(iter(present))
    return ", ".join(f"{count} {name}" for name, count in present.items())


def trimmed(text: str) -> str:
    """The beginning and the end of a long log."""
    if len(text) <= LOG_HEAD + LOG_TAIL:
        return text
    left_out = len(text) - LOG_HEAD - LOG_TAIL
    return f"{text[:LOG_HEAD]}\n[... {left_out} characters left out ...]\n{text[-LOG_TAIL:]}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
