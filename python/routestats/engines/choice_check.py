"""Whether a kernel that routes by itself chose what its router computes from the same logits.

Router and kernel read the same logits and compute in different ways, so experts whose scores are
almost equal may come out in either order. Two different sets are a near tie if each may be the best
one: no expert outside it is better by more than the rounding of both scores. That is asked of the
scores as the choice is made by them: logits (softmax keeps their order) or sigmoids, biased where
the router adds a bias, and within the groups of experts that it chooses first. Every other
difference is one that rounding does not explain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routestats.errors import CaptureError

SAME, NEAR_TIE, DIFFERENT = range(3)

# Exponential, sum and division of float32, each off by a few units in the last place.
_ARITHMETIC = 8 * torch.finfo(torch.float32).eps


def rounding(dtype: torch.dtype) -> float:
    """How far a score that has passed through `dtype` may be off, relative to its scale.

    Half a unit in the last place for the rounding to `dtype`, and eight units of float32 for the
    arithmetic around it.
    """
    return float(torch.finfo(dtype).eps / 2 + _ARITHMETIC)


@dataclass(frozen=True, slots=True)
class Scores:
    """What the experts of one layer are chosen by, for the rows of a step.

    Attributes
    ----------
    logits : tensor, shape [rows, E]
    bias : tensor, shape [E], or None
        Added to the scores for the choice alone.
    sigmoid : bool
        Scores are the sigmoids of the logits, else the logits.
    groups, chosen_groups : int
        Experts are chosen from the best `chosen_groups` of `groups` equal groups. A group counts by
        its two best experts where there is a bias, else by its best.
    unit : float
        As `rounding` gives it. The scale of a sigmoid is 1, that of a logit its size, at least 1;
        the size of a bias is added.
    """

    logits: Any
    bias: Any
    sigmoid: bool
    groups: int
    chosen_groups: int
    unit: float

    def ranges(self) -> tuple[Any, Any]:
        """Least and greatest value of each score, float32 ``[rows, E]``."""
        values = self.logits.to(torch.float32)
        scale = values.abs().clamp(min=1.0)
        if self.sigmoid:
            values = values.sigmoid()
            scale = torch.ones_like(values)
        if self.bias is not None:
            bias = self.bias.to(torch.float32)
            values, scale = values + bias, scale + bias.abs()
        return values - self.unit * scale, values + self.unit * scale


def agreement(ours: Any, theirs: Any, scores: Scores) -> Any:
    """`SAME`, `NEAR_TIE` or `DIFFERENT` for each row, uint8 ``[rows]``; nothing waits for a device.

    Parameters
    ----------
    ours, theirs : tensor of integers, shape [rows, K]
    scores : Scores
    """
    ours, theirs = ours.to(torch.int64), theirs.to(torch.int64)
    same = (ours.sort(dim=-1).values == theirs.sort(dim=-1).values).all(dim=-1)
    low, high = scores.ranges()
    near = _may_be_best(ours, low, high, scores) & _may_be_best(theirs, low, high, scores)
    found = torch.where(near, NEAR_TIE, DIFFERENT)
    return torch.where(same, SAME, found).to(torch.uint8)


def _may_be_best(ids: Any, low: Any, high: Any, scores: Scores) -> Any:
    experts = low.shape[-1]
    inside = ids.clamp(0, experts - 1)
    chosen = torch.zeros_like(low, dtype=torch.bool).scatter(-1, inside, True)
    legal = (ids == inside).all(dim=-1) & (chosen.sum(dim=-1) == ids.shape[-1])
    least = high.gather(-1, inside).amin(dim=-1, keepdim=True)  # NaN if one is
    better = ~chosen & ~(low <= least)
    if scores.groups > scores.chosen_groups:
        of_group = [part.unflatten(-1, (scores.groups, -1)) for part in (low, high, chosen)]
        used = of_group[2].any(dim=-1)
        best = 1 if scores.bias is None else 2
        lows, highs = (part.topk(best, dim=-1).values.sum(dim=-1) for part in of_group[:2])
        others = ~torch.eye(scores.groups, dtype=torch.bool, device=low.device)
        surely = ((lows[:, None] > highs[..., None]) & others).sum(dim=-1)
        perhaps = ((highs[:, None] >= lows[..., None]) & others).sum(dim=-1)
        may_be = (surely < scores.chosen_groups) | ~used
        legal &= may_be.all(dim=-1) & (used.sum(dim=-1) <= scores.chosen_groups)
        must_be = (perhaps < scores.chosen_groups)[..., None]
        better = (better.unflatten(-1, (scores.groups, -1)) & must_be).flatten(-2)
    return legal & ~better.any(dim=-1)


Compared = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Of one layer of a step: what `agreement` found, and both choices ``[rows, K]``."""


def near_ties_of(compared: Mapping[int, Compared], layers: int) -> int:
    """How many near ties there are in a step, of which `layers` layers were to be compared.

    Raises
    ------
    CaptureError
        If router and kernel chose differently, or a layer was not compared.
    """
    for layer, (found, ours, theirs) in compared.items():
        different = np.flatnonzero(found == DIFFERENT)
        if len(different):
            row = int(different[0])
            raise CaptureError(
                f"MoE layer {layer}, row {row}: the router chose experts {_as_set(ours[row])}, "
                f"but the kernel {_as_set(theirs[row])}"
            )
    if len(compared) != layers:
        raise CaptureError(
            f"the kernels of {len(compared)} MoE layers told what they chose; expected {layers}"
        )
    return sum(int((found == NEAR_TIE).sum()) for found, _, _ in compared.values())


def _as_set(ids: npt.NDArray[np.int64]) -> str:
    return "{" + ", ".join(map(str, np.sort(ids).tolist())) + "}"
