"""What an engine says of one step; its routing comes from the ring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.engines._requests import NewRequest

Ids = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class StepRows:
    """What the engine's thread says of a step when it hands the step over.

    Rows lie request after request, ``counts[i]`` rows of ``request_ids[i]`` at consecutive
    positions.

    Attributes
    ----------
    request_ids : list of str
    counts : ndarray of int32
        Given as a sequence or array of any integers.
    positions, token_ids : ndarray of int32, shape [rows], or None
        None where the ring gives them, with the routing.
    drafts : mapping of str to int
        How many of a request's last rows are draft tokens.
    new : sequence of NewRequest
        Requests that begin with the step.
    finished : sequence of str
        Requests that ended before it.
    unknown, synthetic : int
        Requests that begin with it and are not in `new`: those of a kind that capture does not
        understand, and those that the engine made up itself.
    synthetic_rows : int
        Rows of requests that the engine made up itself.
    near_ties : int
        Choices in which router and kernel differ within rounding, as far as the ring does not
        count them.
    lookahead : function, optional
        Gives what later gates would have chosen, ``[rows, V, P, M]``. It may wait for a device, so
        the drain thread calls it, once.
    sampled : dict
        Filled in later, and nothing else is: how many tokens the step gave each request that had
        drafts.
    rows : int
        Of all requests.
    """

    request_ids: Sequence[str] = ()
    counts: Any = ()
    positions: npt.NDArray[np.int32] | None = None
    token_ids: npt.NDArray[np.int32] | None = None
    drafts: Mapping[str, int] = field(default_factory=dict)
    new: Sequence[NewRequest] = ()
    finished: Sequence[str] = ()
    unknown: int = 0
    synthetic: int = 0
    synthetic_rows: int = 0
    near_ties: int = 0
    lookahead: Callable[[], Ids] | None = None
    sampled: dict[str, int] = field(default_factory=dict)
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        # On the engine's thread, at every step: no more NumPy than is needed.
        rows = 0
        if len(self.counts):
            object.__setattr__(self, "counts", np.ascontiguousarray(self.counts, np.int32))
            rows = int(np.add.reduce(self.counts))
        object.__setattr__(self, "rows", rows)
