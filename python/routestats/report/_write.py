"""Write the report: HTML, PNGs and CSV files, each by atomic rename."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from routestats.arguments import check_path
from routestats.errors import InvalidValueError, TraceError
from routestats.report import _frame as frame
from routestats.report import _registry as registry
from routestats.report._analysis import Analysis
from routestats.report._made_by import made_by
from routestats.report._page import Section, draw, page
from routestats.report._part import AnyPart
from routestats.report.sections.second_run import Compared, SecondRun, compare_with
from routestats.trace import Trace


def analyse_run(run: Trace | str | os.PathLike[str]) -> Analysis:
    """Everything that the report shows of a run folder or a trace.

    Raises
    ------
    TraceError
        If the run cannot be read.
    InvalidValueError
        If it has no rows.
    """
    trace = _opened(run)
    if len(trace) == 0:
        raise InvalidValueError("run: expected at least 1 row, got 0")
    return registry.analyse(trace)


def write_report(
    run: Trace | Analysis | str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None = None,
    *,
    compare: Trace | Compared | str | os.PathLike[str] | None = None,
    command: str | None = None,
) -> Path:
    """Write ``report.html`` with all figures in it; beside it the figures and tables as files.

    The HTML stands alone: it loads nothing from the network or from beside it, and a policy in it
    forbids browsers to. The figures are PNGs, the tables CSV files in the folder ``tables``.

    Parameters
    ----------
    run : Trace, Analysis or path
        A run folder, a trace, or what `analyse_run` gave.
    out_dir : path, optional
        Folder to write to, made if it is not there. Default ``report`` in the run folder.
    compare : Trace, Compared or path, optional
        A second run of the same shape, or what `compare_with` gave.
    command : str, optional
        What the report says that made it. Default: a call of this function.

    Returns
    -------
    Path
        Of ``report.html``.

    Raises
    ------
    TraceError
        If a run cannot be read, or `out_dir` not be written.
    InvalidValueError
        If the run has no rows, a trace without a folder comes without `out_dir`, or the runs
        cannot be compared.
    RouteStatsError
        If matplotlib or Jinja is not installed.
    """
    trace = run.trace if isinstance(run, Analysis) else _opened(run)
    if out_dir is None and trace.path is None:
        raise InvalidValueError("out_dir: expected a folder, as the trace has none, got None")
    folder = Path(out_dir) if out_dir is not None else Path(str(trace.path)) / "report"
    # First, since it may refuse the second run, and the analysis takes long.
    compared = compare
    if compared is not None and not isinstance(compared, Compared):
        compared = compare_with(trace, _opened(compared))
    analysis = run if isinstance(run, Analysis) else analyse_run(run)
    parts: list[AnyPart] = [*registry.PARTS]
    if compared is not None:
        parts.append(SecondRun(compared))
    pictures = draw(registry.figures(analysis, parts))
    command = command or "routestats.report.write_report(...)"
    blocks = {
        **registry.blocks(analysis, parts),
        "run": frame.run_blocks(analysis, made_by(command, trace.info)),
        "missing": frame.missing_blocks(analysis),
        "definitions": frame.definition_blocks(analysis),
    }
    titles = dict(registry.SECTIONS)
    if compared is not None:
        titles["comparison"] = " and ".join(compared.comparison.names)
    document = page(
        f"Routing of {frame.model_name(trace.info)}",
        frame.subtitle(analysis),
        frame.banners(analysis),
        registry.findings(analysis, parts),
        " ".join(registry.restrictions(analysis)),
        [Section(name, title, blocks[name]) for name, title in titles.items()],
        pictures,
    )
    tables = registry.tables(analysis, parts)
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            _replace(folder / f"{name}.png", picture.png)
        for name, table in tables.items():
            _replace(folder / "tables" / f"{name}.csv", _to_csv(table))
        _replace(folder / "report.html", document.encode())
    except OSError as error:
        raise TraceError(f"{folder}: cannot write the report: {error}") from error
    return folder / "report.html"


def _opened(run: Trace | str | os.PathLike[str]) -> Trace:
    return run if isinstance(run, Trace) else Trace.open(check_path("run", run))


def _to_csv(table: pa.Table) -> bytes:
    """`table` as CSV; lists are written as numbers with spaces between them."""
    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            texts = [None if v is None else _flat(v) for v in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(table, buffer)
    return buffer.getvalue()


def _flat(value: list[object]) -> str:
    return " ".join(_flat(v) if isinstance(v, list) else str(v) for v in value)


def _replace(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp files are private to their owner; a report is meant to be read.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
