"""All predictors: their names, and how each is shown wherever it is shown."""

from __future__ import annotations

from typing import NamedTuple

# Okabe and Ito's palette, which readers with colour vision deficiencies tell apart.
_BLUE, _SKY, _ORANGE, _GREEN = "#0072B2", "#56B4E9", "#E69F00", "#009E73"
_PURPLE, _VERMILION, _GREY, _DARK = "#CC79A7", "#D55E00", "#6B6B6B", "#1A1A1A"


class Predictor(NamedTuple):
    """A predictor and its look: the same in results, figures, the live view and the report.

    Attributes
    ----------
    name : str
        As results name it.
    label : str
        Name for people.
    colour : str
        ``#RRGGBB``.
    marker : str
        ``circle``, ``square``, ``triangle``, ``inverted_triangle``, ``diamond``, ``plus``, ``x``,
        which are Bokeh's words, or nothing: a baseline has a line without marks.
    line : str
        ``solid``, ``dashed`` or ``dotted``, which matplotlib and Bokeh know.
    """

    name: str
    label: str
    colour: str
    marker: str
    line: str


PREDICTORS = {
    predictor.name: predictor
    for predictor in (
        Predictor("uniform", "uniform guess", _GREY, "", "dotted"),
        Predictor("marginal", "marginal", _DARK, "", "dashed"),
        Predictor("token_id", "token id", _GREEN, "square", "solid"),
        Predictor("previous_token", "previous token", _SKY, "triangle", "solid"),
        Predictor("single_hop", "single hop", _BLUE, "circle", "solid"),
        Predictor("history_longest", "history, longest", _ORANGE, "inverted_triangle", "solid"),
        Predictor("history_selected", "history, selected", _VERMILION, "diamond", "solid"),
        Predictor("lookahead", "lookahead", _PURPLE, "plus", "solid"),
        Predictor("lookahead_renormed", "lookahead, renormed", _PURPLE, "x", "dashed"),
    )
}
"""By name, in the order in which they are shown: each knows more, or other things."""

LOOKAHEAD = ("lookahead", "lookahead_renormed")
"""Captured with the run, not fitted."""
FITTED = tuple(name for name in PREDICTORS if name not in LOOKAHEAD)
"""What `hop_accuracy` can measure."""
ALWAYS = ("uniform", "marginal", "single_hop")
"""Measured whatever is asked for."""
HISTORY = ("history_longest", "history_selected")
"""The longest context overfits, and is never shown without what selection makes of it."""
