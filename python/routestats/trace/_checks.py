"""What `verify` gives: one `Check` per thing, and a `VerifyResult` of them all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from routestats.result import Result


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was proven, or not.

    Attributes
    ----------
    name : str
    ok : bool
    detail : str
        One line: what was found.
    figures : dict
    """

    name: str
    ok: bool
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VerifyResult(Result):
    """What `verify` found.

    Attributes
    ----------
    checks : tuple of Check
    ok : bool
        Every check passed.
    complete : bool
        The run was finished properly. A run that was cut off can be sound and incomplete.
    """

    checks: tuple[Check, ...]
    complete: bool

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def summary(self) -> str:
        """The same as `render`."""
        return self.render()

    def to_table(self) -> pa.Table:
        """One row per check: ``check``, ``ok``, ``detail``."""
        return pa.table(
            {
                "check": pa.array([check.name for check in self.checks], pa.string()),
                "ok": pa.array([check.ok for check in self.checks], pa.bool_()),
                "detail": pa.array([check.detail for check in self.checks], pa.string()),
            }
        )

    def render(self) -> str:
        """A table for people."""
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<{width}}  {check.detail}"
            for check in self.checks
        ]
        verdict = "sound" if self.ok else "NOT SOUND"
        lines.append(f"{verdict}{'' if self.complete else ', INCOMPLETE: the run was cut off'}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ok": self.ok,
            "complete": self.complete,
            "checks": [asdict(check) for check in self.checks],
        }
