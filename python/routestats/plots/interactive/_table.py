"""Tables in a notebook: HTML without script, so that viewers that run none show them too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pyarrow as pa

from routestats.errors import InvalidValueError
from routestats.plots.interactive._embed import Html


def table(
    rows: pa.Table | Sequence[Mapping[str, Any]],
    formats: Mapping[str, str] | None = None,
    *,
    caption: str = "",
    most: int = 40,
) -> Html:
    """Rows as an HTML table.

    Parameters
    ----------
    rows : pyarrow.Table or sequence of mappings
        As results give it (``result.to_table()``), or rows with the same names in each.
    formats : mapping of str to str, optional
        Format of a column's numbers, e.g. ``{"share": ".1%"}``. Where it is given, only these
        columns are shown, in this order.
    caption : str
        Above the table.
    most : int
        Rows to show; the caption says how many there are.

    Raises
    ------
    InvalidValueError
        If a column does not exist.
    """
    if isinstance(rows, pa.Table):
        found, total = rows.slice(0, most).to_pylist(), rows.num_rows
        names = list(rows.column_names)
    else:
        found, total = list(rows[:most]), len(rows)
        names = list(found[0]) if found else list(formats or ())
    shown = list(formats) if formats is not None else names
    for name in shown:
        if name not in names:
            raise InvalidValueError(f"formats: expected columns of {', '.join(names)}, got {name}")
    if total > most:
        caption += f" (the first {most} of {total:,} rows)"
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in shown)
    body = "\n".join(
        "<tr>"
        + "".join(_cell(row[name], (formats or {}).get(name, "")) for name in shown)
        + "</tr>"
        for row in found
    )
    text = caption.strip() or f"{total:,} rows"
    return Html(
        f"<p><b>{escape(caption.strip())}</b></p>\n" * bool(caption)
        + f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>",
        f"table: {text}",
    )


def _cell(value: Any, form: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "<td></td>"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"<td>{escape(str(value))}</td>"
    if not form:
        form = ",d" if isinstance(value, int) else ".4g"
    return f'<td style="text-align: right">{format(value, form)}</td>'
