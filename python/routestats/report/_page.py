"""The page of the report, from blocks, figures and templates."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NamedTuple

from routestats.errors import RouteStatsError
from routestats.report._blocks import Block, Image
from routestats.report._part import Drawing, Finding

PNG_DPI = 130
"""1,300 pixels for a figure drawn 1,000 wide, so that it stays sharp on dense screens."""


class Picture(NamedTuple):
    """A PNG, its alternative text and its reading."""

    png: bytes
    alt: str
    reading: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.png).decode("ascii")


class Section(NamedTuple):
    """A section of the page: its name in links, its title and its blocks."""

    name: str
    title: str
    blocks: list[Block]


def draw(drawings: Iterable[Drawing]) -> dict[str, Picture]:
    """Figures as pictures, by name."""
    pictures = {}
    for drawing in drawings:
        buffer = io.BytesIO()
        drawing.draw().savefig(buffer, format="png", dpi=PNG_DPI)
        pictures[drawing.name] = Picture(buffer.getvalue(), drawing.alt, drawing.reading)
    return pictures


def page(
    title: str,
    subtitle: str,
    banners: Sequence[Block],
    findings: Sequence[Finding],
    restrictions: str,
    sections: Iterable[Section],
    pictures: dict[str, Picture],
) -> str:
    """A whole document that loads nothing from anywhere, and that browsers forbid to.

    Sections without a block, and images that were not drawn, are left out.

    Raises
    ------
    RouteStatsError
        If Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise RouteStatsError(
            "the report needs Jinja, which is not installed: pip install 'routestats[plots]'"
        ) from None
    environment = Environment(
        loader=PackageLoader("routestats.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    there = []
    for section in sections:
        blocks = [b for b in section.blocks if not isinstance(b, Image) or b.name in pictures]
        if blocks:
            there.append(section._replace(blocks=blocks))
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        banners=banners,
        findings=findings,
        restrictions=restrictions,
        sections=there,
        pictures=pictures,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
    )


def _asset(name: str) -> str:
    return files("routestats.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """`text` as a source that a Content-Security-Policy allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
