"""Timings of a run's steps, as they lie in its folder ``timing/``.

One row per engine step: what the step ran, and for each stage the nanoseconds it took at every MoE
layer. Files are named by what measured them, ``hooks-000000.parquet`` (clocks around the stages),
``outline-000000.parquet`` (around the whole) or ``profiler-000000.parquet`` (``torch.profiler``),
and appear whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from routestats.errors import InvalidValueError, TraceError, one_of
from routestats.schema import FORMAT_VERSION, LOCK_FILE, METADATA_KEY, RUN_FILE
from routestats.trace import files

STAGES = (
    "gate", "topk", "dispatch", "experts", "combine", "kernel", "runner", "block", "rest",
)  # fmt: skip
"""What a decoder layer's time is made of; each is measured by clock readings at its own ends.

``gate`` the router's matrix product; ``topk`` the choice from its logits; ``dispatch`` what brings
tokens to experts (prepare, align, permute, communication); ``experts`` their computation, shared
ones included; ``combine`` what brings results back and sums them. Then the engine's own code on the
way from one of those to the next: ``kernel`` in the modular kernel (arguments, buffers), ``runner``
in what routes and calls it (checks, padding, contexts), ``block`` in the model's MoE block. These
eight are the MoE block. ``rest`` is what else the decoder layer does: attention and norms.
"""

SOURCES = ("hooks", "outline", "profiler")
"""``outline`` clocks no more than the MoE block as a whole (as ``block``) and the rest: what the
stages must add up to, undisturbed by clocks inside."""
FOLDER = "timing"
OVERHEAD_FILE = "overhead.json"
PREFILL, DECODE, MIXED = "prefill", "decode", "mixed"


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What one engine step ran.

    Attributes
    ----------
    domain : str
    rows, prefill_rows, requests : int
        Tokens that it ran, those of them that were read from prompts, and whose they were.
    warm_up : bool
        Left out of statistics.
    """

    domain: str
    rows: int
    prefill_rows: int
    requests: int
    warm_up: bool

    @property
    def phase(self) -> str:
        """``prefill``, ``decode`` or ``mixed``."""
        if self.prefill_rows == 0:
            return DECODE
        return PREFILL if self.prefill_rows == self.rows else MIXED


@dataclass(frozen=True, slots=True)
class TimingInfo:
    """What a file of timings says of itself.

    Attributes
    ----------
    source : {"hooks", "outline", "profiler"}
    layer_ids : tuple of int, length L
    clock : str
        What measured, e.g. ``time.perf_counter_ns``.
    model : str
    engine : dict
    call_ns : float
        Nanoseconds that one clocked call costs, which have been taken off; 0 where they are not
        known. It differs from file to file, and infos that differ in nothing else are equal.
    measure : str
        What a time is, in words; empty in files of before it was said.
    """

    source: str
    layer_ids: tuple[int, ...]
    clock: str
    model: str
    engine: dict[str, Any]
    call_ns: float = field(default=0.0, compare=False)
    measure: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class StepTimes:
    """All steps that one source timed.

    Attributes
    ----------
    info : TimingInfo
    phase : ndarray of str, shape [S]
    rows : ndarray of int64, shape [S]
    warm_up : ndarray of bool, shape [S]
    step_ns : ndarray of int64, shape [S]
        The whole step, as the engine's model runner ran it and by the same measure (a profiler's on
        the host, until the device was done); 0 where it was not clocked.
    stage_ns : dict of ndarray of int64, shape [S, L]
        By the names of `STAGES`.
    """

    info: TimingInfo
    phase: npt.NDArray[np.str_]
    rows: npt.NDArray[np.int64]
    warm_up: npt.NDArray[np.bool_]
    step_ns: npt.NDArray[np.int64]
    stage_ns: dict[str, npt.NDArray[np.int64]]


def _schema(info: TimingInfo) -> pa.Schema:
    layers = len(info.layer_ids)
    names = pa.dictionary(pa.int8(), pa.string())
    return pa.schema(
        [
            pa.field("domain", pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field("phase", names, nullable=False),
            pa.field("rows", pa.int32(), nullable=False),
            pa.field("prefill_rows", pa.int32(), nullable=False),
            pa.field("requests", pa.int32(), nullable=False),
            pa.field("warm_up", pa.bool_(), nullable=False),
            pa.field("step_ns", pa.int64(), nullable=False),
            *(
                pa.field(f"{stage}_ns", pa.list_(pa.int64(), layers), nullable=False)
                for stage in STAGES
            ),
        ],
        metadata={
            METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION, **asdict(info)}).encode()
        },
    )


def write_timings(
    run_dir: str | Path,
    info: TimingInfo,
    steps: Sequence[StepFigures],
    step_ns: npt.NDArray[np.int64],
    stage_ns: npt.NDArray[np.int64],
) -> Path:
    """Add a file of steps to a run.

    Parameters
    ----------
    run_dir : path
    info : TimingInfo
    steps : sequence of StepFigures, length S
    step_ns : ndarray of int64, shape [S]
    stage_ns : ndarray of int64, shape [S, L, 9]
        In the order of `STAGES`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidValueError
        If the shapes do not fit each other.
    TraceError
        If it cannot be written.
    """
    expected = (len(steps), len(info.layer_ids), len(STAGES))
    if stage_ns.shape != expected or step_ns.shape != expected[:1]:
        raise InvalidValueError(
            f"stage_ns: expected shape {expected}, got {stage_ns.shape} "
            f"with step_ns {step_ns.shape}"
        )
    schema = _schema(info)
    columns: list[Any] = [
        [step.domain for step in steps],
        [step.phase for step in steps],
        [step.rows for step in steps],
        [step.prefill_rows for step in steps],
        [step.requests for step in steps],
        [step.warm_up for step in steps],
        np.asarray(step_ns, np.int64),
    ]
    arrays = [
        pa.array(column).cast(of.type)
        if not pa.types.is_dictionary(of.type)
        else pa.array(column, pa.string()).dictionary_encode().cast(of.type)
        for column, of in zip(columns, schema, strict=False)
    ]
    for index in range(len(STAGES)):
        flat = np.ascontiguousarray(stage_ns[:, :, index], np.int64).ravel()
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), expected[1]))
    table = pa.Table.from_arrays(arrays, schema=schema)
    folder = Path(run_dir) / FOLDER
    there = sorted(folder.glob(f"{info.source}-*.parquet"))
    number = int(there[-1].stem.rpartition("-")[2]) + 1 if there else 0
    path = folder / f"{info.source}-{number:06d}.parquet"
    files.write_atomically(path, lambda file: pq.write_table(table, file, compression="zstd"))
    _note_in_run(Path(run_dir), info)
    return path


def _note_in_run(run_dir: Path, info: TimingInfo) -> None:
    """Say in ``run.json``, too, what the times are; not in one that another process is writing."""
    if not (run_dir / RUN_FILE).is_file():
        return
    try:
        lock = files.lock(run_dir)
    except TraceError:
        return
    try:
        about = files.read_run_file(run_dir)
        noted = {"clock": info.clock, "measure": info.measure}
        about["timing"] = {**about.get("timing", {}), info.source: noted}
        files.write_json(run_dir / RUN_FILE, about)
    finally:
        (run_dir / LOCK_FILE).unlink(missing_ok=True)
        lock.close()


def chrome_trace_path(run_dir: str | Path) -> Path:
    """Where the next trace of a profiler goes."""
    folder = Path(run_dir) / FOLDER
    number = len(list(folder.glob("chrome-trace-*.json.gz")))
    return folder / f"chrome-trace-{number:06d}.json.gz"


def write_overhead(run_dir: str | Path, figures: dict[str, Any]) -> None:
    """Keep what the clocks themselves cost: paired times of the same work, with and without."""
    files.write_json(Path(run_dir) / FOLDER / OVERHEAD_FILE, figures)


def read_overhead(run_dir: str | Path) -> dict[str, Any] | None:
    """What `write_overhead` kept, or None."""
    path = Path(run_dir) / FOLDER / OVERHEAD_FILE
    if not path.is_file():
        return None
    try:
        figures: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TraceError(f"{path}: cannot be read: {files.one_line(error)}") from None
    return figures


def timing_sources(run_dir: str | Path) -> tuple[str, ...]:
    """Which of `SOURCES` have timed this run."""
    folder = Path(run_dir) / FOLDER
    return tuple(name for name in SOURCES if any(folder.glob(f"{name}-*.parquet")))


def read_timings(run_dir: str | Path, source: str = "hooks") -> StepTimes:
    """Everything that `source` timed.

    Raises
    ------
    InvalidValueError
        If there is no such source.
    TraceError
        If the run has no timings of it, or they cannot be read or do not belong together.
    """
    if source not in SOURCES:
        raise InvalidValueError(f"source: {one_of(SOURCES, source)}")
    run = Path(run_dir)
    files.check_folder(run)
    paths = sorted((run / FOLDER).glob(f"{source}-*.parquet"))
    if not paths:
        flag = "--timing --torch-profiler" if source == "profiler" else "--timing"
        raise TraceError(
            f"{run}: has no timings by {source}; a finished run cannot be timed afterwards: "
            f"take them with 'routestats profile ... {flag}'"
        )
    tables, infos = [], []
    for path in paths:
        file = files.open_parquet(path)
        infos.append(_info(path, files.file_metadata(file)))
        if infos[-1] != infos[0]:
            raise TraceError(f"{path}: differs from {paths[0].name} in model, engine or layers")
        with files.reading(path):
            tables.append(file.read())
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    layers = len(infos[0].layer_ids)
    return StepTimes(
        info=infos[0],
        phase=np.array(table["phase"].to_pylist(), dtype=np.str_),
        rows=table["rows"].to_numpy().astype(np.int64),
        warm_up=np.array(table["warm_up"].to_pylist(), dtype=np.bool_),
        step_ns=table["step_ns"].to_numpy(),
        stage_ns={stage: _matrix(table[f"{stage}_ns"], len(table), layers) for stage in STAGES},
    )


def _info(path: Path, meta: dict[str, Any]) -> TimingInfo:
    try:
        return TimingInfo(
            source=meta["source"],
            layer_ids=tuple(meta["layer_ids"]),
            clock=meta["clock"],
            model=meta["model"],
            engine=meta["engine"],
            call_ns=float(meta["call_ns"]),
            measure=str(meta.get("measure", "")),
        )
    except KeyError as error:
        raise TraceError(f"{path}: holds no timings: its metadata lacks {error}") from None


def _matrix(column: pa.ChunkedArray, steps: int, layers: int) -> npt.NDArray[np.int64]:
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    joined = np.concatenate(flat) if flat else np.empty(0, np.int64)
    return joined.reshape(steps, layers).astype(np.int64)
