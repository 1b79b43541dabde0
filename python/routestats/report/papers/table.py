"""A table in a paper's format: the user's own values, a random baseline, the paper's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from routestats.report.papers.published import Source
from routestats.result import Result


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One row: whose it is, its name, and a value per column (NaN where there is none).

    Attributes
    ----------
    origin : str
        ``measured``, ``random`` or ``published``.
    name : str
    values : tuple of float
    low, high : tuple of float, or None
        Interval of each value.
    """

    origin: str
    name: str
    values: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PaperTable(Result):
    """A published table with the user's rows in it; made by `paper_table`.

    Attributes
    ----------
    name, title : str
    source : Source
    unit : str
    columns : tuple of str
    rows : tuple of PaperRow
    notes : tuple of str
        How the values were made, and what differs from the paper.
    whole : tuple of str
        Columns of whole numbers; the others are printed with one decimal.
    """

    name: str
    title: str
    source: Source
    unit: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...]
    whole: tuple[str, ...] = ()

    def to_table(self) -> pa.Table:
        """One row per row of the table, with the bounds of each column that has intervals."""
        columns: dict[str, Sequence[object]] = {
            "origin": [row.origin for row in self.rows],
            "name": [row.name for row in self.rows],
        }
        for i, title in enumerate(self.columns):
            columns[title] = [row.values[i] for row in self.rows]
            if any(row.low is not None for row in self.rows):
                columns[f"{title} low"] = [_bound(row.low, i) for row in self.rows]
                columns[f"{title} high"] = [_bound(row.high, i) for row in self.rows]
        return pa.table(columns)

    def summary(self) -> str:
        """The table as text, its sections apart, with source and notes."""
        cells = [self._cells(row) for row in self.rows]
        label = max(len(name) for name in ["", *(row.name for row in self.rows)]) + 2
        widths = [
            max(len(title), *(len(row[i]) for row in cells)) + 2
            for i, title in enumerate(self.columns)
        ]
        head = " " * label + "".join(
            title.rjust(width) for title, width in zip(self.columns, widths, strict=True)
        )
        lines = [f"{self.title} ({self.unit})", head]
        origin = ""
        for row, texts in zip(self.rows, cells, strict=True):
            if row.origin != origin:
                origin = row.origin
                heading = f"{origin} ({self.source})" if origin == "published" else origin
                lines.append(f"-- {heading}")
            lines.append(
                row.name.ljust(label)
                + "".join(text.rjust(width) for text, width in zip(texts, widths, strict=True))
            )
        return "\n".join([*lines, *(f"* {note}" for note in self.notes)])

    def _cells(self, row: PaperRow) -> list[str]:
        texts = []
        for i, value in enumerate(row.values):
            decimals = 0 if self.columns[i] in self.whole else 1
            text = "" if np.isnan(value) else f"{value:.{decimals}f}"
            low, high = _bound(row.low, i), _bound(row.high, i)
            if not np.isnan(low):
                text += f" [{low:.1f}, {high:.1f}]"
            texts.append(text)
        return texts


def _bound(bounds: tuple[float, ...] | None, column: int) -> float:
    return float("nan") if bounds is None else bounds[column]


def three_layers(layers: int) -> list[int]:
    """The first, the middle and the last."""
    return sorted({0, (layers - 1) // 2, layers - 1})
