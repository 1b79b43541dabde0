"""What a page of the report is made of, as data; ``templates/`` makes HTML of it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from routestats.stats import Estimate

NONE = "–"
DENSE = 6
"""Columns from which on intervals stand below their values."""


class Cell(NamedTuple):
    """A cell's text; its value, or its value and the two ends of its interval.

    The numbers are what sorting and CSV take.
    """

    text: str
    values: tuple[float, ...] = ()

    @property
    def shown(self) -> tuple[str, str]:
        """The value and its interval, which is smaller, or nothing."""
        value, space, interval = self.text.partition(" [")
        return (value, f"[{interval}") if len(self.values) == 3 and space else (self.text, "")

    @property
    def numbers(self) -> str:
        """`values` with spaces between them."""
        return " ".join(repr(float(value)) for value in self.values)


Row = Sequence[str | Cell]


class Block:
    """Base of blocks; a template knows them by `kind`."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class Heading(Block):
    """A heading within a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Paragraph(Block):
    """Text, with a class of the style sheet if named."""

    text: str
    css: str = ""


@dataclass(frozen=True, slots=True)
class Preformatted(Block):
    """Text with its own line breaks and columns."""

    text: str


@dataclass(frozen=True, slots=True)
class Banner(Block):
    """A warning that cannot be overlooked."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Image(Block):
    """The figure of this name; nothing where it was not drawn."""

    name: str


@dataclass(frozen=True, slots=True)
class Details(Block):
    """A block folded away under a line of text."""

    summary: str
    body: Block


@dataclass(frozen=True, slots=True)
class Definitions(Block):
    """Terms and what they mean."""

    items: Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table(Block):
    """A table that can be sorted and saved.

    Attributes
    ----------
    name : str
        Distinct within the page; its file's name.
    headers : sequence of str
    rows : sequence of sequences of str or Cell
    caption : str
    text_columns : container of int
        Columns that hold text; the others hold numbers.
    bad : str or None
        A cell that equals it is marked.
    """

    name: str
    headers: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    text_columns: Container[int] = (0,)
    bad: str | None = None

    @property
    def id(self) -> str:
        return re.sub(r"[^\w.-]+", "-", self.name)

    @property
    def dense(self) -> bool:
        return len(self.headers) >= DENSE

    @property
    def cells(self) -> list[list[Cell]]:
        return [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in self.rows]


def number(value: float | int, form: str = ",") -> Cell:
    """`value` in the format `form`."""
    if np.isnan(value):
        return Cell(NONE)
    return Cell(f"{value:{form}}", (value,))


def share(value: float, decimals: int = 1) -> Cell:
    """A share of 1 in percent; its value stays of 1."""
    return number(value, f".{decimals}%")


def percent(estimate: Estimate, place: int | tuple[int, ...] = (), decimals: int = 1) -> Cell:
    """One entry of `estimate`, a share of 1, in percent and with its interval where it has one."""
    return _estimate(estimate, place, 100, f".{decimals}f", "%")


def points(estimate: Estimate, place: int | tuple[int, ...] = ()) -> Cell:
    """A difference of shares, in percentage points."""
    return _estimate(estimate, place, 100, "+.1f", " points")


def bits(estimate: Estimate, place: int | tuple[int, ...] = (), form: str = ".4f") -> Cell:
    """An information in bits."""
    return _estimate(estimate, place, 1, form, "")


def _estimate(
    estimate: Estimate, place: int | tuple[int, ...], scale: float, form: str, unit: str
) -> Cell:
    values = estimate.at(place)
    if np.isnan(values[0]):
        return Cell(NONE)
    text = estimate.text(place, form, scale=scale, unit=unit)
    return Cell(text, values[:1] if np.isnan(values[1]) else values)
