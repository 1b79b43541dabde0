"""Whether a trace has segments of so many tokens, said without a parameter that nobody gave."""

from __future__ import annotations

import numpy as np

from routestats.errors import InvalidValueError
from routestats.stats._base.units import Runs, Units
from routestats.trace import Trace


def check_segments(what: str, trace: Trace, tokens: int) -> None:
    """Refuse a trace of which no request has `tokens` consecutive positions; `what` needs them."""
    longest = int(np.max(Runs.of(trace, Units.of(trace)).lengths, initial=0))
    if longest < tokens:
        raise InvalidValueError(
            f"{what}: expected a request of at least {tokens} consecutive tokens, got {longest} at "
            "most"
        )
