"""Write the report: HTML and PNGs, each by atomic rename."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from routestats.errors import InvalidValueError, TraceError
from routestats.report import _html as html
from routestats.report import _inside_engine as engine
from routestats.report import _pattern_sections as patterns
from routestats.report import _prediction_sections as hops
from routestats.report import _sections as sections
from routestats.report._analysis import Analysis, analyse
from routestats.report._comparison import (
    Compared,
    compare_with,
    comparison_section,
    draw_compared,
)
from routestats.report._figures import Pictures, draw_all
from routestats.report._findings import findings
from routestats.report._made_by import MadeBy, made_by
from routestats.report._restrictions import restrictions
from routestats.report._tables import comparison_tables, tables, to_csv
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
    return analyse(trace, trace if isinstance(run, Trace) else run)


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
        If matplotlib is not installed.
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
    pictures = draw_all(analysis)
    if compared is not None:
        draw_compared(analysis, compared, pictures)
    made = made_by(command or "routestats.report.write_report(...)", trace.info)
    document = _document(analysis, compared, pictures, made)
    sheets = tables(analysis)
    if compared is not None:
        sheets |= comparison_tables(compared)
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            _replace(folder / f"{name}.png", picture.png)
        for name, sheet in sheets.items():
            _replace(folder / "tables" / f"{name}.csv", to_csv(sheet))
        _replace(folder / "report.html", document.encode())
    except OSError as error:
        raise TraceError(f"{folder}: cannot write the report: {error}") from error
    return folder / "report.html"


def _opened(run: Trace | str | os.PathLike[str]) -> Trace:
    return run if isinstance(run, Trace) else Trace.open(Path(run))


def _document(
    analysis: Analysis, compared: Compared | None, pictures: Pictures, made: MadeBy
) -> str:
    title = f"Routing of {sections.model_name(analysis.trace.info)}"
    top = [
        html.heading(1, title),
        html.paragraph(sections.subtitle(analysis), "subtitle"),
        *sections.banners(analysis),
        html.findings(findings(analysis, compared)),
        html.paragraph(
            "Numbers in brackets are 95% intervals over prompts; every percentage stands beside "
            "what chance, or a guess that does not look, would give. Tables sort by a click on a "
            "header; CSV saves one with its unrounded numbers, shares as parts of 1.",
            "note",
        ),
        *(html.paragraph(text, "note") for text in (" ".join(restrictions(analysis)),) if text),
    ]
    # Those of either run stand at the end, but who compares reads them first.
    beside = [] if compared is None else comparison_section(analysis, compared, pictures)
    parts = [
        beside,
        sections.run_section(analysis, made),
        sections.verification(analysis),
        sections.load_section(analysis, pictures),
        hops.one_hop_section(analysis, pictures),
        hops.many_hops_section(analysis, pictures),
        patterns.paths_section(analysis, pictures),
        patterns.domains_section(analysis, pictures),
        patterns.steadiness_section(analysis, pictures),
        engine.timing_section(analysis, pictures),
        engine.lookahead_section(analysis, pictures),
        engine.speculation_section(analysis, pictures),
        sections.missing_section(analysis),
        sections.end_matter(analysis),
    ]
    body = [text for part in parts for text in part]
    return html.page(title, html.contents(body), [*top, *body])


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
