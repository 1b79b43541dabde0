"""The few HTML parts that the report is made of. Every function escapes the text it is given."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Container, Iterable, Sequence
from html import escape, unescape
from importlib.resources import files

from routestats.report._cells import Cell

Row = Sequence[str | Cell]
DENSE = 6
"""Columns from which on intervals stand below their values."""


def page(title: str, contents: Sequence[tuple[str, str]], body: Iterable[str]) -> str:
    """A whole document that loads nothing from anywhere, and that browsers forbid to.

    Parameters
    ----------
    title : str
    contents : sequence of (id, text)
        Sections of the table of contents.
    body : iterable of str
        HTML.
    """
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{escape(i)}">{escape(text)}</a></li>' for i, text in contents)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            f'<nav aria-label="Contents"><ol>{links}</ol></nav>',
            "<main>",
            *body,
            "</main>",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        )
    )


def _asset(name: str) -> str:
    return files("routestats.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """`text` as a source that a Content-Security-Policy allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def heading(level: int, text: str, name: str = "") -> str:
    """Heading of the given level; if named, with the id ``section-<name>``."""
    anchor = f' id="section-{escape(name)}"' if name else ""
    return f"<h{level}{anchor}>{escape(text)}</h{level}>"


def contents(body: Iterable[str]) -> list[tuple[str, str]]:
    """Id and text of every named heading of the second level in `body`."""
    found = (re.fullmatch(r'<h2 id="([^"]*)">(.*)</h2>', part) for part in body)
    return [(unescape(match[1]), unescape(match[2])) for match in found if match]


def paragraph(text: str, css: str = "") -> str:
    """Paragraph, with a class of the style sheet if named."""
    return f"<p{_css(css)}>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text with its own line breaks and columns."""
    return f"<pre>{escape(text)}</pre>"


def banner(text: str, *, bad: bool = False) -> str:
    """A warning that cannot be overlooked."""
    return f'<div{_css("banner bad" if bad else "banner")} role="note">{escape(text)}</div>'


def findings(items: Iterable[tuple[str, str, str, bool]]) -> str:
    """Questions with their answers: question, answer, what stands beside it, whether it is bad."""
    rows = (
        f"<div{_css('bad' if bad else '')}><dt>{escape(question)}</dt>"
        f"<dd><strong>{escape(answer)}</strong> {escape(beside)}</dd></div>"
        for question, answer, beside, bad in items
    )
    return f'<dl class="findings">{"".join(rows)}</dl>'


def table(
    name: str,
    headers: Sequence[str],
    rows: Iterable[Row],
    *,
    caption: str = "",
    text_columns: Container[int] = (0,),
    bad: str | None = None,
) -> str:
    """Table that can be sorted and saved.

    Parameters
    ----------
    name : str
        Its id, distinct within the page, and its file's name.
    headers : sequence of str
    rows : iterable of sequences of str or Cell
    caption : str
    text_columns : container of int
        Columns that hold text; the others hold numbers.
    bad : str, optional
        A cell that equals it is marked.
    """

    def css(column: int) -> str:
        return "" if column in text_columns else "n"

    name = escape(re.sub(r"[^\w.-]+", "-", name))
    dense = ' class="dense"' if len(headers) >= DENSE else ""
    about = f' aria-describedby="{name}-about"' if caption else ""
    lines = [
        f'<div class="table"><div class="bar"><span id="{name}-about">{escape(caption)}</span>'
        f'<button type="button" class="csv" data-table="{name}" '
        f'aria-label="Save the table {name} as CSV">CSV</button></div>',
        f'<div class="scroll"><table id="{name}"{dense}{about}>',
    ]
    cells = "".join(
        f'<th scope="col"{_css(css(i))}><button type="button">{escape(head)}</button></th>'
        for i, head in enumerate(headers)
    )
    lines.append(f"<thead><tr>{cells}</tr></thead><tbody>")
    for row in rows:
        cells = ""
        for i, cell in enumerate(row):
            text, values = cell if isinstance(cell, Cell) else (cell, ())
            data = f' data-v="{" ".join(repr(float(v)) for v in values)}"' if values else ""
            kind, scope = ("th", ' scope="row"') if i == 0 else ("td", "")
            look = _css("bad" if i and text == bad else css(i))
            cells += f"<{kind}{scope}{look}{data}>{_shown(text, values)}</{kind}>"
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody></table></div></div>")
    return "\n".join(lines)


def _shown(text: str, values: tuple[float, ...]) -> str:
    """A cell's text; an interval is smaller than its value."""
    value, space, interval = text.partition(" [")
    if len(values) != 3 or not space:
        return escape(text)
    return f"{escape(value)} <small>[{escape(interval)}</small>"


def image(png: bytes, alt: str, caption: str = "") -> str:
    """Figure with its picture inside the document, and its reading below."""
    data = base64.b64encode(png).decode("ascii")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">{below}</figure>'


def definitions(items: Iterable[tuple[str, str]]) -> str:
    """List of terms and what they mean."""
    parts = (f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in items)
    return f"<dl>{''.join(parts)}</dl>"


def details(summary: str, body: str) -> str:
    """`body` (HTML) folded away under a line of text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _css(name: str) -> str:
    return f' class="{escape(name)}"' if name else ""
