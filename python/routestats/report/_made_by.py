"""What made a report: the command, and the versions of everything that had a part in it."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import Any

UNKNOWN = "not known"
SECONDS = 10


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The command, and names with their versions."""

    command: str
    versions: tuple[tuple[str, str], ...]


def made_by(command: str, info: dict[str, Any]) -> MadeBy:
    """Versions of this program and of what captured the run that `info` (run.json) tells of."""
    engine, model = info.get("engine") or {}, info.get("model") or {}
    named = engine if isinstance(engine, dict) else {"name": str(engine)}
    described = model if isinstance(model, dict) else {"name": str(model)}
    return MadeBy(
        command,
        (
            ("report made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
            ("routestats", _version("routestats")),
            ("its commit", _commit()),
            ("Python", platform.python_version()),
            *((name, _version(name)) for name in ("numpy", "scipy", "pyarrow", "matplotlib")),
            ("engine of the run", _words(named, ("name", "version")) or UNKNOWN),
            ("torch of the run", str(named.get("torch", UNKNOWN))),
            ("model of the run", _words(described, ("name", "revision", "note")) or UNKNOWN),
            ("format of the trace", str(info.get("format_version", UNKNOWN))),
        ),
    )


def _words(values: dict[str, Any], names: tuple[str, ...]) -> str:
    return " ".join(str(values[name]) for name in names if values.get(name))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def _commit() -> str:
    """Of the checkout that this package lies in, or that it was installed from."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent.parent
    if (checkout / ".git").exists() and package == checkout / "python" / "routestats":
        command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
        try:
            done = subprocess.run(
                [*command, "--exclude=*"],
                capture_output=True,
                text=True,
                check=True,
                timeout=SECONDS,
            )
        except (OSError, subprocess.SubprocessError):
            return UNKNOWN
        return done.stdout.strip().replace("-dirty", ", with changes that are not committed")
    try:
        origin = Distribution.from_name("routestats").read_text("direct_url.json")
    except PackageNotFoundError:
        return UNKNOWN
    found = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    return str(found) if found else UNKNOWN
