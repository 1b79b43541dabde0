"""Whether a trace has segments of so many tokens, said without a parameter that nobody gave."""

from __future__ import annotations

import numpy as np

from routestats.errors import InvalidValueError
from routestats.stats._base.units import Runs, Units
from routestats.trace import Trace


def check_segments(what: str, trace: Trace, tokens: int, *, whose: str) -> None:
    """Refuse a trace of which no request has the consecutive positions of a segment."""
    longest = int(np.max(Runs.of(trace, Units.of(trace)).lengths, initial=0))
    if longest < tokens:
        raise InvalidValueError(
            f"{what}: expected a request of at least {tokens} consecutive positions, as long as "
            f"{whose} segments; the longest run is {longest}"
        )
