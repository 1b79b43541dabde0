"""The few HTML parts that the report is made of. Every function escapes the text it is given."""

from __future__ import annotations

import base64
from collections.abc import Container, Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1a1a1a; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 78ch; }
.subtitle, .note { color: #555; }
.note { font-size: .9rem; }
.banner { border-left: 6px solid #b35900; background: #fff4e5; padding: .6rem 1rem;
  margin: .8rem 0; }
.banner.bad { border-color: #b00020; background: #fdecee; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; margin: .4rem 0 1rem; }
caption { text-align: left; color: #555; font-size: .9rem; padding-bottom: .3rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; }
thead th { border-bottom: 2px solid #999; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.n { white-space: normal; }
tbody th { font-weight: 500; }
td.bad { color: #b00020; font-weight: 700; }
figure { margin: 1rem 0 1.6rem; }
img { width: 100%; height: auto; display: block; border: 1px solid #e4e4e4; }
figcaption { margin-top: .5rem; max-width: 78ch; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; max-width: 78ch; }
summary { cursor: pointer; color: #0058a3; }
pre { overflow-x: auto; font-size: .85rem; background: #f7f7f7; padding: .6rem .8rem; }
code { font-size: .92em; overflow-wrap: anywhere; }
@media print { details > * { display: block; } h2 { break-after: avoid; }
  figure { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document that loads nothing from anywhere."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        )
    )


def heading(level: int, text: str) -> str:
    """Heading of the given level."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, css: str = "") -> str:
    """Paragraph, with a class of `STYLE` if named."""
    return f"<p{_css(css)}>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text with its own line breaks and columns."""
    return f"<pre>{escape(text)}</pre>"


def banner(text: str, *, bad: bool = False) -> str:
    """A warning that cannot be overlooked."""
    return f'<div{_css("banner bad" if bad else "banner")} role="note">{escape(text)}</div>'


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    text_columns: Container[int] = (0,),
    bad: str | None = None,
) -> str:
    """Table whose `text_columns` hold text and whose other columns hold numbers.

    A cell that equals `bad` is marked.
    """

    def css(column: int) -> str:
        return "" if column in text_columns else "n"

    lines = ['<div class="scroll"><table>']
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    cells = "".join(
        f'<th scope="col"{_css(css(i))}>{escape(name)}</th>' for i, name in enumerate(headers)
    )
    lines.append(f"<thead><tr>{cells}</tr></thead><tbody>")
    for row in rows:
        first, *others = row
        cells = f'<th scope="row">{escape(first)}</th>'
        for i, text in enumerate(others, start=1):
            cells += f"<td{_css('bad' if text == bad else css(i))}>{escape(text)}</td>"
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def image(png: bytes, alt: str, caption: str) -> str:
    """Figure with its picture inside the document, and its reading below."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def definitions(items: Iterable[tuple[str, str]]) -> str:
    """List of terms and what they mean."""
    parts = (f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in items)
    return f"<dl>{''.join(parts)}</dl>"


def details(summary: str, body: str) -> str:
    """`body` (HTML) folded away under a line of text."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _css(name: str) -> str:
    return f' class="{escape(name)}"' if name else ""
