"""The folder of a run that is being written: its lock, its description and its totals."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from routestats.errors import TraceError
from routestats.schema import FORMAT_VERSION, LOCK_FILE, RUN_FILE
from routestats.trace import files
from routestats.trace.token_file import TokenFile

# What must be equal for a capture to be added to a run that is there.
_IDENTITY = ("model", "shape", "layer_ids", "weights", "lookahead")


class RunFolder:
    """A run that this process alone writes, from its opening until `finish`.

    Parameters
    ----------
    run_dir : path
        A new or empty folder, or a run.
    description : dict
        Contents of ``run.json`` but for version, times and totals. A run that is there must have
        the same model, shape, layers, weights and lookahead; of the rest its own stays.

    Attributes
    ----------
    before : dict of int
        Totals of the captures before this one.
    next_step : int
        The largest step in the run's files, plus 1; 0 where none is known.
    is_new : bool
        Whether there was no run before.

    Raises
    ------
    TraceError
        If the folder cannot be written, holds something else, or another writer has it.
    """

    def __init__(self, run_dir: Path, description: dict[str, Any]) -> None:
        self.run_dir = run_dir
        self.before: dict[str, int] = {}
        self.next_step = 0
        self._created = not run_dir.exists()
        self.is_new = not (run_dir / RUN_FILE).exists()
        if self.is_new:
            _make(run_dir)
            self._info = {"format_version": FORMAT_VERSION, **description, "created": _now()}
        else:
            self._info = _read_same(run_dir, description)
        self._lock = files.lock(run_dir)
        try:
            files.remove_temporaries(run_dir)
            if not self.is_new:
                self._read_files()
            self._info.pop("finished", None)
            self._describe(complete=False)
        except TraceError:
            self._lock.close()
            self._remove_if_empty()
            raise

    def _read_files(self) -> None:
        """What the captures before this one left."""
        counted = {"rows": 0, "dropped_rows": 0, "requests": 0}
        for some in files.token_files(self.run_dir).values():
            for path in some:
                file = TokenFile(path)
                counted["rows"] += file.num_rows
                counted["dropped_rows"] += file.dropped_rows
                self.next_step = max(self.next_step, file.next_step())
        for path in files.parts(self.run_dir / "requests"):
            counted["requests"] += files.open_parquet(path).metadata.num_rows
        # A run that was cut off has no totals.
        totals = self._info.pop("totals", None) or counted
        self.before = {name: value for name, value in totals.items() if isinstance(value, int)}

    def _describe(self, *, complete: bool) -> None:
        # Files of this version are added, so the run is of this version.
        self._info = {**self._info, "format_version": FORMAT_VERSION, "complete": complete}
        files.write_json(self.run_dir / RUN_FILE, self._info)

    def finish(
        self, totals: Mapping[str, int] | None, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Describe the run as complete, with these totals of the capture, or as cut off.

        Parameters
        ----------
        totals : mapping of str to int, optional
            None of a run that was cut off. They are added to those of the captures before.
        notes : mapping, optional
            What else ``run.json`` says; a note that is None is removed.

        Raises
        ------
        TraceError
            If ``run.json`` cannot be written. The lock is given back all the same.
        """
        try:
            if totals is not None:
                self._info["totals"] = {
                    name: self.before.get(name, 0) + totals.get(name, 0)
                    for name in {**self.before, **totals}
                }
            for name, note in (notes or {}).items():
                self._info.pop(name, None)
                if note is not None:
                    self._info[name] = note
            self._info["finished"] = _now()
            self._describe(complete=totals is not None)
        finally:
            self.unlock()

    def abandon(self) -> None:
        """Give the lock back, and take a new run without a file of rows away."""
        self.unlock()
        self._remove_if_empty()

    def unlock(self) -> None:
        """Give the lock back and leave everything as it is."""
        (self.run_dir / LOCK_FILE).unlink(missing_ok=True)
        self._lock.close()

    def _remove_if_empty(self) -> None:
        if not self.is_new:
            return
        run_dir = self.run_dir
        if any(run_dir.glob("tokens/domain=*/part-*")):
            return
        for path in (run_dir / RUN_FILE, run_dir / LOCK_FILE):
            path.unlink(missing_ok=True)
        for folder in [*run_dir.glob("tokens/*"), run_dir / "tokens", run_dir / "requests"]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if self._created and run_dir.is_dir() and not any(run_dir.iterdir()):
            run_dir.rmdir()


def check_run(run_dir: Path, description: dict[str, Any]) -> None:
    """Raise what opening a `RunFolder` would raise now, and leave everything as it is."""
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        if (run_dir / RUN_FILE).exists():
            _read_same(run_dir, description)
        else:
            _make(run_dir)
        with files.lock(run_dir):
            (run_dir / LOCK_FILE).unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _make(run_dir: Path) -> None:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        # A lock may be there before its run; a file of another kind is not ours.
        foreign = next((p for p in run_dir.iterdir() if p.name != LOCK_FILE), None)
    except OSError as error:
        raise TraceError(f"{run_dir}: cannot be written: {files.one_line(error)}") from None
    if foreign is not None:
        raise TraceError(f"{run_dir}: is no run and not empty: it holds {foreign.name}")


def _read_same(run_dir: Path, description: dict[str, Any]) -> dict[str, Any]:
    """The description of the run that is there; it must be of the same identity."""
    info = files.read_run_file(run_dir)
    for name in _IDENTITY:
        if info.get(name) != description[name]:
            raise TraceError(
                f"{run_dir}: is a run with {name} {info.get(name)}; expected {description[name]}"
            )
    return info


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
