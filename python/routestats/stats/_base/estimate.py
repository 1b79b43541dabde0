"""Percentile bootstrap of sums that were kept per prompt group.

Tokens of one request are not independent, and several requests may sample one prompt. So whole
prompt groups are drawn with replacement, within each domain, and every estimate is computed anew
from the drawn groups' sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from routestats.arguments import MOST, check_integer

Floats = npt.NDArray[np.float64]
Place = int | tuple[int, ...]


class Estimate(NamedTuple):
    """An estimate and its confidence interval: three arrays of one shape.

    The bounds are NaN where the value is, and where no interval can be had: without resamples,
    or with a domain that has fewer than two prompt groups.
    """

    value: Floats
    low: Floats
    high: Floats

    def at(self, place: Place = ()) -> tuple[float, float, float]:
        """Value, low and high of one entry."""
        value, low, high = (float(np.asarray(part)[place]) for part in self)
        return value, low, high

    def text(
        self,
        place: Place = (),
        form: str = ".1%",
        *,
        scale: float = 1.0,
        unit: str = "",
        comma: str = ", ",
    ) -> str:
        """One entry with its interval if there is one, such as ``12.3% [11.0%, 13.5%]``.

        Parameters
        ----------
        place : int or tuple of int
            Index of the entry.
        form : str
            Format of the three numbers, which are multiplied by `scale` before.
        unit, comma : str
            What follows the value, and what parts the bounds.
        """
        value, bounds = self.at(place)[0], self.bounds(place, form, scale=scale, comma=comma)
        return f"{value * scale:{form}}{unit}" + (f" {bounds}" if bounds else "")

    def bounds(
        self, place: Place = (), form: str = ".1%", *, scale: float = 1.0, comma: str = ", "
    ) -> str:
        """The interval of one entry alone, as `text` has it; nothing where there is none."""
        _, low, high = self.at(place)
        if np.isnan(low):
            return ""
        return f"[{low * scale:{form}}{comma}{high * scale:{form}}]"


def resampling_weights(
    strata: npt.NDArray[np.integer], *, resamples: int, seed: int
) -> Floats | None:
    """How often each group is drawn in each resample; strata keep their number of groups.

    Parameters
    ----------
    strata : ndarray of integers, shape [G]
        Stratum (domain) of each group.
    resamples : int
        B; 0 means no intervals.
    seed : int

    Returns
    -------
    ndarray of float64, shape [B, G], or None
        None where resampling says nothing: ``resamples`` is 0, or a stratum has one group only
        (its spread cannot be seen, and an interval would pretend that there is none).
    """
    resamples = check_integer("bootstrap", resamples, 0, MOST)
    seed = check_integer("seed", seed, 0)
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    if resamples == 0 or len(sizes) == 0 or sizes.min() < 2:
        return None
    rng = np.random.default_rng(seed)
    weights = np.empty((resamples, len(strata)))
    for index, size in enumerate(sizes):
        weights[:, stratum == index] = rng.multinomial(
            size, np.full(size, 1.0 / size), size=resamples
        )
    return weights


def percentile_interval(value: Floats, samples: Floats | None, confidence: float) -> Estimate:
    """`value` with the central `confidence` part of `samples` ([B, ...]) as its interval."""
    if samples is None:
        missing = np.full_like(value, np.nan)
        return Estimate(value, missing, missing.copy())
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return Estimate(value, low, high)
