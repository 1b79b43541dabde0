"""Write the report: HTML and PNGs, each by atomic rename."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from routestats import plots
from routestats.errors import InvalidValueError, TraceError
from routestats.plots._load_by_domain import MAX_DOMAINS
from routestats.report import _html as html
from routestats.report import _sections as sections
from routestats.report import _study_sections as study
from routestats.report._analysis import Analysis, analyse
from routestats.report._inside_engine import inside_engine
from routestats.report._readings import (
    read_accuracy,
    read_affinity,
    read_differences,
    read_domains,
    read_load,
    read_paths,
    read_prediction,
)
from routestats.report._tables import tables, to_csv
from routestats.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 150
"""1,500 pixels for a figure drawn 1,000 wide, so that it stays sharp on dense screens."""


def analyse_run(run: Trace | str | os.PathLike[str]) -> Analysis:
    """Everything that the report shows of a run folder or a trace.

    Raises
    ------
    TraceError
        If the run cannot be read.
    InvalidValueError
        If it has no rows.
    """
    trace = run if isinstance(run, Trace) else Trace.open(Path(run))
    if len(trace) == 0:
        raise InvalidValueError("run: expected at least 1 row, got 0")
    return analyse(trace, trace if isinstance(run, Trace) else run)


def write_report(
    run: Trace | Analysis | str | os.PathLike[str],
    out_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write ``report.html`` with all figures in it; beside it the figures and tables as files.

    The HTML stands alone: it loads nothing from the network or from beside it. The figures are
    PNGs, the tables CSV files in the folder ``tables``.

    Parameters
    ----------
    run : Trace, Analysis or path
        A run folder, a trace, or what `analyse_run` gave.
    out_dir : path, optional
        Folder to write to, made if it is not there. Default ``report`` in the run folder.

    Returns
    -------
    Path
        Of ``report.html``.

    Raises
    ------
    TraceError
        If the run cannot be read, or `out_dir` not be written.
    InvalidValueError
        If the run has no rows, or a trace without a folder comes without `out_dir`.
    RouteStatsError
        If matplotlib is not installed.
    """
    analysis = run if isinstance(run, Analysis) else None
    if analysis is None:
        trace = run if isinstance(run, Trace) else Trace.open(Path(run))  # type: ignore[arg-type]
    else:
        trace = analysis.trace
    if out_dir is None and trace.path is None:
        raise InvalidValueError("out_dir: expected a folder, as the trace has none, got None")
    folder = Path(out_dir) if out_dir is not None else Path(str(trace.path)) / "report"
    if analysis is None:
        analysis = analyse_run(run)  # type: ignore[arg-type]
    pictures = _draw(analysis)
    document = _document(analysis, pictures)
    sheets = {name: to_csv(table) for name, table in tables(analysis).items()}
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for name, (png, _, _) in pictures.items():
            _replace(folder / f"{name}.png", png)
        for name, sheet in sheets.items():
            _replace(folder / "tables" / f"{name}.csv", sheet)
        _replace(folder / "report.html", document.encode())
    except OSError as error:
        raise TraceError(f"{folder}: cannot write the report: {error}") from error
    return folder / "report.html"


def _draw(analysis: Analysis) -> dict[str, tuple[bytes, str, str]]:
    """PNG, alternative text and reading of every figure, by file name."""
    note = f"{analysis.trace.requests.num_rows:,} requests"
    figures: dict[str, tuple[bytes, str, str]] = {}

    def add(name: str, figure: Figure, alt: str, reading: str) -> None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=PNG_DPI)
        figures[name] = (buffer.getvalue(), alt, reading)

    load, loads = analysis.load, analysis.load_by_domain
    add(
        "expert_load",
        plots.expert_load(load, note=note),
        "Heat map of expert load by layer, with imbalance and effective experts",
        read_load(load),
    )
    if 2 <= len(loads) <= MAX_DOMAINS:
        add(
            "load_by_domain",
            plots.load_by_domain(loads, note=note),
            "Heat maps of expert load by layer, one per domain",
            read_domains(loads),
        )
    if analysis.trace.shape.num_layers > 1:
        add(
            "affinity",
            plots.affinity_grid(analysis.counts, note=note),
            "Small heat maps of affinity between experts of adjacent layers",
            read_affinity(analysis.counts),
        )
    if analysis.accuracy is not None:
        add(
            "hop_accuracy",
            plots.hop_accuracy(analysis.accuracy),
            "Matrices of prediction accuracy by source and target layer, and means by distance",
            read_accuracy(analysis.accuracy),
        )
        add(
            "prediction",
            plots.prediction(analysis.accuracy, note=note),
            "Accuracy of every predictor against the number of layers ahead",
            read_prediction(analysis.accuracy),
        )
    if analysis.paths:
        add(
            "path_coverage",
            plots.path_coverage(*analysis.paths.values(), note=note),
            "Share of tokens on the most frequent paths, beside routing without memory",
            read_paths(analysis.paths),
        )
    pairs = {difference.domains for difference in analysis.differences}
    if len(pairs) == 1:
        add(
            "domain_divergence",
            plots.domain_divergence(*analysis.differences, note=note),
            "Divergence of expert loads between two domains by layer",
            read_differences(analysis.differences),
        )
    return figures


def _document(analysis: Analysis, pictures: dict[str, tuple[bytes, str, str]]) -> str:
    title = f"Routing of {sections.model_name(analysis.trace.info)}"
    body = [
        html.heading(1, title),
        html.paragraph(sections.subtitle(analysis), "subtitle"),
        *sections.banners(analysis),
        *sections.key_figures(analysis),
    ]

    def section(name: str, heading: str, *more: str) -> list[str]:
        if name not in pictures:
            return [html.heading(2, heading), *more] if more else []
        return [html.heading(2, heading), html.image(*pictures[name]), *more]

    body += section("expert_load", "Expert load", sections.layer_table(analysis))
    by_domain = [sections.domain_table(analysis)] if len(analysis.load_by_domain) > 1 else []
    by_domain += study.differences_section(analysis)
    if "domain_divergence" in pictures:
        by_domain.append(html.image(*pictures["domain_divergence"]))
    body += section("load_by_domain", "Domains", *by_domain)
    body += section("affinity", "Affinity of adjacent layers")
    unpredicted = analysis.missing.get("prediction", "")
    missing = [html.paragraph(unpredicted)] if analysis.accuracy is None else []
    body += section("hop_accuracy", "Prediction of later layers", *missing)
    body += section("prediction", "Prediction by hop", *study.prediction_tables(analysis))
    body += study.information_section(analysis)
    body += section("path_coverage", "Paths", *study.paths_section(analysis))
    body += study.steadiness_section(analysis)
    body += study.links_section(analysis)
    body += inside_engine(analysis.trace)
    body += study.missing_section(analysis)
    body += sections.verification(analysis)
    body += [html.heading(2, "Definitions"), html.definitions(sections.DEFINITIONS)]
    body += sections.provenance(analysis)
    return html.page(title, body)


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
