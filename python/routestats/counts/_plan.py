"""Which pairs of layers are counted, in which order, over which slots."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from routestats.arguments import check_choice, is_iterable
from routestats.errors import InvalidTypeError, InvalidValueError

Pairing = Literal["any", "top1"]
Layers = npt.NDArray[np.intp]
Hops = int | str | Iterable[int]


def check_pairing(pairing: str) -> Pairing:
    """Return `pairing`, or raise InvalidValueError if there is none of that name."""
    return "any" if check_choice("pairing", pairing, get_args(Pairing)) == "any" else "top1"


def check_hops(hops: Hops, num_layers: int) -> tuple[int, ...]:
    """`hops` as distinct ascending numbers in 0..L-1.

    Raises
    ------
    InvalidTypeError
        If a hop is no integer.
    InvalidValueError
        If a hop is outside 0..L-1, or a word other than ``all``.
    """
    if isinstance(hops, str):
        if hops != "all":
            raise InvalidValueError(f"hops: expected 'all', an int or ints, got {hops!r}")
        return tuple(range(num_layers))
    items: Iterable[Any] = hops if is_iterable(hops) else [hops]
    checked = set()
    for item in items:
        if isinstance(item, bool):
            raise InvalidTypeError(f"hops: expected integers, got {item!r}")
        try:
            hop = operator.index(item)
        except TypeError:
            raise InvalidTypeError(f"hops: expected integers, got {item!r}") from None
        if not 0 <= hop < num_layers:
            raise InvalidValueError(f"hops: expected 0 to {num_layers - 1}, got {hop}")
        checked.add(hop)
    return tuple(sorted(checked))


def layer_pairs(num_layers: int, hops: Iterable[int] | None = None) -> tuple[tuple[int, int], ...]:
    """Source and target of each layer pair: by hop, then by source. The one order of every ``[P]``.

    Parameters
    ----------
    num_layers : int
    hops : iterable of int, optional
        Ascending; by default 1 to L - 1, which gives P = L * (L - 1) / 2 pairs.
    """
    chosen = range(1, num_layers) if hops is None else hops
    return tuple((src, src + hop) for hop in chosen for src in range(num_layers - hop))


def pair_layers(num_layers: int, hops: Iterable[int] | None = None) -> tuple[Layers, Layers]:
    """`layer_pairs` as two arrays of integers [P], sources and targets, which index matrices."""
    pairs = np.array(layer_pairs(num_layers, hops), np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


class PairPlan:
    """The pairs (l, l + hop) of all hops, one triangle, in the order of `layer_pairs`.

    Attributes
    ----------
    hops : tuple of int
        Ascending.
    pairs : tuple of (int, int)
        Source and target layer; a pair's place here is its place in the table of tiles.
    """

    def __init__(self, hops: tuple[int, ...], num_layers: int) -> None:
        self.hops = hops
        self.pairs = layer_pairs(num_layers, hops)

    @cached_property
    def _places(self) -> dict[tuple[int, int], int]:
        return {pair: place for place, pair in enumerate(self.pairs)}

    def place(self, src: int, dst: int) -> int:
        """Where the tile of ``src <= dst`` lies; InvalidValueError if its hop is not counted."""
        try:
            return self._places[src, dst]
        except KeyError:
            raise InvalidValueError(
                f"pair({src}, {dst}): hop {dst - src} was not counted, the hops are {self.hops}"
            ) from None
