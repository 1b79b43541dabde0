"""How each predictor looks, so that it is the same in every figure that shows several."""

from __future__ import annotations

from typing import NamedTuple

from routestats.plots._style import BLUE, DARK, GREEN, GREY, ORANGE, PURPLE, VERMILION


class Look(NamedTuple):
    """Name for people, colour and line style of a predictor."""

    label: str
    colour: str
    style: str


LOOKS = {
    "lookahead_renormed": Look("lookahead, renormed", VERMILION, "-"),
    "lookahead": Look("lookahead", BLUE, "-"),
    "token_id": Look("token id", GREEN, "-"),
    "history_selected": Look("history, selected", PURPLE, "-"),
    "history_longest": Look("history, longest", PURPLE, ":"),
    "single_hop": Look("single hop", ORANGE, "-"),
    "previous_token": Look("previous token", DARK, "--"),
    "marginal": Look("marginal", GREY, "--"),
    "uniform": Look("uniform guess", GREY, ":"),
}
"""Roughly in the order of what they know."""
