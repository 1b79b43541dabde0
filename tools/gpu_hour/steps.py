"""The words of the hour: an item is a question, its steps are the commands that answer it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]
Figures = dict[str, Any]


class StepFailed(Exception):  # noqa: N818
    """The commands ended well, and yet what they left is wrong; the message says how."""


@dataclass(frozen=True)
class Place:
    """Where the steps run."""

    root: Path  # of the checkout
    python: str
    device: Literal["cuda", "cpu"]
    work: Path  # what steps leave for each other, and may be lost
    results: Path
    layers: int | None = None  # of the models of real size; None for all

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Step:
    """Commands that are run one after the other until one fails, and what to make of them.

    Attributes
    ----------
    key : str
        The item's number, a dot, and the step's.
    title : str
    commands : list of list of str
    needs : tuple of str
        What must be on the machine, in the words of `Machine.missing`.
    timeout : int
        Seconds after which the commands are killed.
    expected : int
        Seconds that it is likely to take: what must be left of a budget to begin it. A guess until
        it has run.
    read : callable
        From what the commands printed to figures. Raises `StepFailed`.
    environment : dict
    after : tuple of str
        Keys of steps that it makes no sense before.
    holds : list of str
        A command that fails where what the step made outside the results is gone or old; the step
        is then run again.
    """

    key: str
    title: str
    commands: list[list[str]]
    needs: tuple[str, ...] = ()
    timeout: int = 540
    expected: int = 120
    read: Callable[[str], Figures] = lambda output: {}
    environment: dict[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    holds: list[str] = field(default_factory=list)

    @property
    def item(self) -> int:
        return int(self.key.partition(".")[0])


@dataclass(frozen=True)
class Outcome:
    """What came of a step; `reason` is of a failed or skipped one."""

    status: Status
    seconds: float = 0.0
    reason: str = ""
    figures: Figures = field(default_factory=dict)
