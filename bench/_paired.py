"""Two ways of doing one thing, taken in turn until their ratio is known well enough."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 0.01  # of the interval at which to stop
Pairs = list[tuple[float, float]]


def prompts(count: int) -> list[str]:
    """Short arithmetic questions, each of its own."""
    return [
        f"Question: {3 + i} boxes hold {12 + i} pens each. How many pens are there?\nAnswer:"
        for i in range(count)
    ]


def hidden_1024(folder: Path) -> Path:
    """A random Mixtral of hidden size 1,024: 8 layers of the proposal's 8 experts, top-2."""
    from routestats.models.untrained import make_mixtral

    return make_mixtral(
        folder / "mixtral-hidden-1024",
        hidden_size=1024,
        num_layers=8,
        num_experts=8,
        top_k=2,
        intermediate_size=2048,
        seed=0,
        dtype="bfloat16",
    )


def settings_of(name: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Of an engine of the built-in model, of the random one (made in `folder`) or of a path."""
    from routestats.models import tiny_settings

    if name == "tiny":
        return tiny_settings(**more)
    return {"model": str(hidden_1024(folder) if name == "hidden-1024" else name), **more}


def median_interval(ratios: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median and its 95 % percentile-bootstrap interval."""
    draws = np.random.default_rng(seed).choice(ratios, size=(2000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def alternate(
    first: Callable[[], float],
    second: Callable[[], float],
    minutes: float,
    before: Sequence[Sequence[float]] = (),
) -> Pairs:
    """Seconds of both in pairs, in random order, after `before`.

    Ends when the interval of the median ratio is `WIDTH` wide, or the time is up.
    """
    pairs: Pairs = [(a, b) for a, b in before]
    order = random.Random(len(pairs))
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        sides = [0, 1]
        order.shuffle(sides)
        took = {side: (first, second)[side]() for side in sides}
        pairs.append((took[0], took[1]))
        if len(pairs) >= 20 and len(pairs) % 5 == 0:
            median, low, high = median_interval(np.divide(*np.transpose(pairs)))
            print(f"  {len(pairs)} pairs: {median:.4f} [{low:.4f}, {high:.4f}]", flush=True)
            if high - low <= WIDTH:
                break
    return pairs


def figures_of(pairs: Pairs) -> dict[str, Any]:
    """The median ratio first / second with its interval, and what the second takes."""
    first, second = np.transpose(pairs)
    median, low, high = median_interval(first / second)
    return {
        "pairs": len(pairs),
        "ratio_median": round(median, 4),
        "ratio_low": round(low, 4),
        "ratio_high": round(high, 4),
        "plain_s_median": round(float(np.median(second)), 4),
        "plain_s_iqr": [round(float(x), 4) for x in np.percentile(second, [25, 75])],
    }


def line_of(figures: dict[str, Any]) -> str:
    """The ratio in words."""
    return (
        f"{figures['ratio_median']:.4f}, 95 % interval [{figures['ratio_low']:.4f}, "
        f"{figures['ratio_high']:.4f}], {figures['pairs']} pairs of {figures['plain_s_median']} s"
    )
