"""What `layer_matrix` draws: values, baseline and words for each measure of each result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routestats.errors import InvalidValueError, one_of
from routestats.plots._draw.style import check_result, join
from routestats.stats import Correlation, HopAccuracy, Information

Floats = npt.NDArray[np.float64]

INFORMATION = {
    "normalised": "information, % of the target's entropy",
    "mi_bits": "mutual information (bits)",
    "jackknife_bits": "mutual information less its bias (bits)",
    "miller_madow_bits": "mutual information, Miller-Madow (bits)",
    "cramers_v": "Cramér's V, bias-corrected (0 to 1)",
}
NULLS = {
    "request": "tokens permuted within requests",
    "token": "tokens permuted within token ids",
}

EXPLAINED = {"request": "the request", "token": "the token's identity"}


@dataclass(frozen=True, slots=True, eq=False)
class LayerValues:
    """A matrix to draw.

    Attributes
    ----------
    values : ndarray of float64, shape [L, L]
        In the units of `label`; NaN where there is none, and where target <= source.
    baseline : float or None
        The centre of the colours, mean over the pairs that have a value.
    least : float
        Smallest reach of the colours.
    directed : bool
        Whether one layer predicts the other.
    """

    values: Floats
    baseline: float | None
    baseline_label: str
    label: str
    title: str
    caption: tuple[str, ...]
    least: float
    directed: bool = True


def layer_values(
    result: HopAccuracy | Information | Correlation,
    measure: str | None,
    *,
    predictor: str,
    baseline: str | None,
    gain: bool,
) -> LayerValues:
    """Look up `measure`; see `layer_matrix` for its arguments and errors."""
    check_result(result, HopAccuracy, Information, Correlation)
    if isinstance(result, HopAccuracy):
        shown = _accuracy(result, measure, predictor, baseline, gain)
    elif isinstance(result, Information):
        shown = _information(result, measure, baseline, gain)
    else:
        shown = _correlation(result, measure, baseline, gain)
    if not np.isfinite(shown.values).any():
        raise InvalidValueError(f"measure: expected one with values, got {shown.title!r} without")
    return shown


def _accuracy(
    result: HopAccuracy, measure: str | None, predictor: str, baseline: str | None, gain: bool
) -> LayerValues:
    found = result.main if measure is None else result[measure]
    prediction = found[predictor]
    chosen = _one_of("baseline", baseline or "marginal", ("marginal", "uniform"))
    values = prediction.matrix.value * 100
    base = np.where(np.isfinite(values), found[chosen].matrix.value * 100, np.nan)
    mean = _mean(base)
    of = "target layers' marginal" if chosen == "marginal" else "uniform guess"
    caption = (
        f"fitted on {result.train_tokens:,} tokens, measured on {result.test_tokens:,} others "
        f"({result.test_groups:,} prompts)",
        f"pairing: {result.pairing}",
    )
    name = f"{found.label[0].upper()}{found.label[1:]}"
    if gain:
        return LayerValues(
            values=values - base,
            baseline=0.0,
            baseline_label=f"no better than the {of}",
            label=f"{found.label} less baseline (percentage points)",
            title=f"{name} of {prediction.label}, gain over the {of}",
            caption=(*caption, f"mean of the baseline {mean:.1f}%"),
            least=1.0,
        )
    return LayerValues(
        values=values,
        baseline=mean,
        baseline_label=f"{of}, {'mean ' if chosen == 'marginal' else ''}{mean:.1f}%",
        label=f"{found.label} (%)",
        title=f"{name} of {prediction.label}, by source and target layer",
        caption=caption,
        least=1.0,
    )


def _information(
    result: Information, measure: str | None, baseline: str | None, gain: bool
) -> LayerValues:
    default = "normalised" if result.pairing == "top1" else "mi_bits"
    name = _one_of("measure", measure or default, tuple(INFORMATION))
    values = result.mi_bits.value if name == "mi_bits" else getattr(result, name)
    scale = 100.0 if name == "normalised" else 1.0
    null = _null(result, name, baseline)
    caption = join(
        f"first choices of {result.tokens:,} tokens"
        if result.pairing == "top1"
        else f"all pairs of choices of {result.tokens:,} tokens (pairing: any)",
        f"{result.null_draws} draws of the null" if null is not None else "",
    )
    label, title = INFORMATION[name], INFORMATION[name].split(" (")[0].split(", ")[0]
    title = {"normalised": "Normalised information"}.get(name, title[0].upper() + title[1:])
    least = 0.1 if name == "normalised" else 1e-3
    if null is None:
        if gain:
            raise InvalidValueError(
                f"gain: expected a measure with a null (mi_bits or normalised, null_draws > 0), "
                f"got {name}"
            )
        return LayerValues(
            values=values * scale,
            baseline=None,
            baseline_label="",
            label=label,
            title=f"{title} between layers",
            caption=(caption,),
            least=least,
        )
    words = NULLS[baseline or "request"]
    null = np.where(np.isfinite(values), null, np.nan)
    mean = _mean(null) * scale
    if gain:
        return LayerValues(
            values=(values - null) * scale,
            baseline=0.0,
            baseline_label=f"as with {words}",
            label=f"{label}, less its null",
            title=f"{title} between layers beyond what {EXPLAINED[baseline or 'request']} explains",
            caption=(caption,),
            least=least,
        )
    return LayerValues(
        values=values * scale,
        baseline=mean,
        baseline_label=f"{words}, mean {mean:.3g}{'%' if name == 'normalised' else ''}",
        label=label,
        title=f"{title} between layers",
        caption=(caption,),
        least=least,
    )


def _null(result: Information, name: str, baseline: str | None) -> Floats | None:
    """The null in the units of the measure, [L, L]; None where it has none."""
    if baseline is not None:
        _one_of("baseline", baseline, tuple(NULLS))
    bits = result.token_null_bits if baseline == "token" else result.request_null_bits
    known = name in ("mi_bits", "normalised") and bool(np.isfinite(bits).any())
    if not known:
        if baseline is not None:
            raise InvalidValueError(
                f"baseline: expected None, as {name} has no null {baseline!r} in this result, "
                f"got {baseline!r}"
            )
        return None
    if name == "mi_bits":
        return bits
    # Both are divided by the entropy of the target, which is their ratio.
    mi = result.mi_bits.value
    ratio = np.divide(result.normalised, mi, out=np.full_like(mi, np.nan), where=mi > 0)
    null: Floats = bits * ratio
    return null


def _correlation(
    result: Correlation, measure: str | None, baseline: str | None, gain: bool
) -> LayerValues:
    name = _one_of("measure", measure or "mean_abs", ("mean_abs", "largest"))
    if baseline is not None or gain:
        raise InvalidValueError(
            "baseline, gain: expected neither for a Correlation, whose own baseline is marked, "
            f"got {baseline!r}, {gain}"
        )
    later = np.triu(np.ones_like(result.mean_abs, dtype=bool), 1)
    values = np.where(later, getattr(result, name), np.nan)
    caption = (f"{result.tokens:,} tokens", f"pairing: {result.pairing}")
    if name == "largest":
        return LayerValues(
            values=values,
            baseline=0.0,
            baseline_label="no correlation",
            label="phi coefficient of largest size (-1 to 1)",
            title="Largest correlation between two experts of two layers",
            caption=caption,
            least=1e-3,
            directed=False,
        )
    return LayerValues(
        values=values,
        baseline=result.independent_mean_abs,
        baseline_label=f"independent tokens, about {result.independent_mean_abs:.4f}",
        label="mean absolute phi coefficient (0 to 1)",
        title="Mean absolute correlation of the experts of two layers",
        caption=caption,
        least=1e-3,
        directed=False,
    )


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InvalidValueError(f"{name}: {one_of(known, value)}")
    return value
