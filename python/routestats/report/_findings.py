"""The summary on top: a question a line, the answer in plain words, its baseline beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from routestats.report._analysis import HOPS_SHOWN, Analysis
from routestats.report._cells import bits, percent
from routestats.report._comparison import Compared
from routestats.report._limits import LEVEL
from routestats.report._published import CITED_RANGE
from routestats.report._readings import EVEN_ENOUGH
from routestats.stats import DomainDifference, HopMeasure, Prediction

BASELINES = ("uniform", "marginal")


class Finding(NamedTuple):
    """A question, the answer in a few words, what stands beside it, and whether it is alarming."""

    question: str
    answer: str
    beside: str
    bad: bool = False


def findings(analysis: Analysis, compared: Compared | None = None) -> list[Finding]:
    """What a reader wants to know first; a question whose answer was not computed is not there."""
    return [
        *_capture(analysis),
        *_load(analysis),
        *_prediction(analysis),
        *_information(analysis),
        *_paths(analysis),
        *_domains(analysis),
        *_steadiness(analysis),
        *_engine(analysis),
        *([] if compared is None else _compared(compared)),
    ]


def _capture(analysis: Analysis) -> Iterator[Finding]:
    trace, result = analysis.trace, analysis.verification
    failed = [check.name for check in result.checks if not check.ok]
    totals = trace.info.get("totals")
    dropped = totals.get("dropped_rows") if isinstance(totals, dict) else None
    drops = f", {dropped:,} dropped" if dropped is not None else ""
    text = (
        f"{len(trace):,} tokens of {trace.requests.num_rows:,} requests "
        f"({len(np.unique(trace.row_groups())):,} different prompts; "
        f"{', '.join(trace.domains)}){drops}."
    )
    if failed:
        answer = f"No: {', '.join(failed)} failed."
    elif not result.complete:
        answer = f"As far as it goes: {len(result.checks)} checks pass, but the run is incomplete."
    else:
        answer = f"Yes: all {len(result.checks)} checks pass."
    yield Finding("Can the data be trusted?", answer, text, bool(failed) or not result.complete)


def _load(analysis: Analysis) -> Iterator[Finding]:
    load = analysis.load
    worst = int(load.imbalance.argmax())
    uneven = int((load.imbalance >= EVEN_ENOUGH).sum())
    yield Finding(
        "How even is the load?",
        f"The busiest expert of a layer gets {load.imbalance.mean():.2f} times the mean",
        f"(even: 1.00), on average over the layers; {uneven} of {len(load.layer_ids)} layers are "
        f"at {EVEN_ENOUGH} or more, most layer {load.layer_ids[worst]} with "
        f"{load.imbalance[worst]:.2f}.",
    )


def _prediction(analysis: Analysis) -> Iterator[Finding]:
    compared = analysis.of_first_choice
    if compared is None:
        why = analysis.missing.get("prediction")
        if why:
            yield Finding("Can a later layer be predicted?", "Not measured:", f"{why}.")
        return
    measure = compared.main
    known = "first choice" if compared.pairing == "top1" else "experts"
    yield Finding(
        f"One layer ahead, from the {known} of this layer?",
        f"{percent(measure.hop_by_distance, 0).text} {measure.label}",
        f"on held-out prompts; {_baselines(measure, 1)}.",
    )
    best = best_predictor(measure, 1)
    if best.name != "single_hop":
        yield Finding(
            "… with the best predictor?",
            f"{percent(best.by_hop, 0).text}, {best.label}",
            f"(same measure; {_others(measure, best, 1)}; {_baselines(measure, 1)}).",
        )
    hops = [h for h in HOPS_SHOWN if 1 < h <= len(measure.hop_by_distance.value)]
    if hops:
        texts = []
        for hop in dict.fromkeys((hops[len(hops) // 2], hops[-1])):
            best = best_predictor(measure, hop)
            marginal = percent(measure.marginal_by_distance, hop - 1).text
            texts.append(
                (f"{hop} ahead: {percent(best.by_hop, hop - 1).text}", best.label, marginal)
            )
        yield Finding(
            "Further ahead?",
            "; ".join(text for text, _, _ in texts),
            "by the best predictor ("
            + " and ".join(dict.fromkeys(label for _, label, _ in texts))
            + "); marginal "
            + " and ".join(marginal for _, _, marginal in texts)
            + f", uniform {measure.uniform:.1%}.",
        )


def best_predictor(measure: HopMeasure, hop: int) -> Prediction:
    """The predictor with the largest value at `hop`; baselines are none."""
    known = [p for p in measure.predictions if p.name not in BASELINES]
    return max(known, key=lambda p: float(np.nan_to_num(p.by_hop.value[hop - 1], nan=-1.0)))


def _baselines(measure: HopMeasure, hop: int) -> str:
    marginal = percent(measure.marginal_by_distance, hop - 1).text
    return f"always the most used: {marginal}, a uniform guess: {measure.uniform:.1%}"


def _others(measure: HopMeasure, best: Prediction, hop: int) -> str:
    shown = [
        p
        for p in measure.predictions
        if p.name in ("token_id", "single_hop") and p.name != best.name
    ]
    return ", ".join(f"{p.label} {percent(p.by_hop, hop - 1).text}" for p in shown)


def _information(analysis: Analysis) -> Iterator[Finding]:
    found = analysis.information
    if found is None or 1 not in found.hops:
        return
    i = found.hops.index(1)
    value, token = float(found.mean_by_hop.value[i]), float(found.token_null_by_hop[i])
    yield Finding(
        "How much does a layer tell about the next?",
        f"{bits(found.mean_by_hop, i, '.3f').text} bits",
        f"of mutual information (pairing {found.pairing}). Tokens permuted within their request "
        f"leave {found.request_null_by_hop[i]:.3f}; among equal token ids {token:.3f}: "
        f"{token / value:.0%} of it is which token it is."
        if value > 0
        else f"(pairing {found.pairing}); permuted within token ids {token:.3f}.",
    )


def _paths(analysis: Analysis) -> Iterator[Finding]:
    if not analysis.paths:
        return
    found = next(iter(analysis.paths.values()))
    part, n = found.windows[0], len(found.top) - 1
    kind = "first choices" if found.kind == "top1" else "sets"
    yield Finding(
        "Do few paths carry most tokens?",
        f"The top {found.top[n]:,} carry {part.observed.coverage[n]:.1%} of the tokens",
        f"({part.observed.distinct:,.0f} different paths of {kind} through all layers); "
        f"{part.markov.coverage[n]:.1%} if each layer knew only the one before it, "
        f"{part.independent.coverage[n]:.1%} if the layers were independent.",
    )


def _domains(analysis: Analysis) -> Iterator[Finding]:
    if not analysis.differences:
        return
    first = analysis.differences[0].domains
    found = [d for d in analysis.differences if d.domains == first]
    moved = analysis.transfer
    text = _bits_beside(found)
    if moved is not None:
        measure = moved.measures[0]
        own, other = (percent(measure.hop, (i, 0, 0)).text for i in (0, 1))
        text += (
            f" A table learnt on {moved.domains[1]} predicts {moved.domains[0]} with {other} "
            f"({measure.name.replace('_', ' ')}), its own with {own}, the marginal with "
            f"{percent(measure.marginal, (0, 0, 0)).text}."
        )
    yield Finding(f"Do {first[0]} and {first[1]} differ?", _beyond(found), text)


def _beyond(found: Sequence[DomainDifference]) -> str:
    return "; ".join(
        f"{d.phase}: loads differ at {int((d.load.q_value <= LEVEL).sum())} of {len(d.layer_ids)} "
        f"layers and for {int(d.experts.beyond(LEVEL).sum()):,} of {d.experts.q_value.size:,} "
        "experts"
        for d in found
    )


def _bits_beside(found: Sequence[DomainDifference]) -> str:
    each = (
        f"{d.load.bits.mean():.4f} bits in {d.phase} (prompts permuted: "
        f"{d.load.null_mean_bits.mean():.4f})"
        for d in found
    )
    return f"beyond chance (q ≤ {LEVEL}): {', '.join(each)}."


def _steadiness(analysis: Analysis) -> Iterator[Finding]:
    found = analysis.repetition
    if found is None:
        return
    if np.isnan(found.first_choice_all.value).all():
        estimate, random, what = found.shared_all, found.random_shared, "share an expert"
    else:
        estimate, random = found.first_choice_all, found.random_first_choice
        what = "keep the first choice"
    if np.isnan(estimate.value).all():
        return
    low, high = int(np.nanargmin(estimate.value)), int(np.nanargmax(estimate.value))
    yield Finding(
        "Does the next token go the same way?",
        f"{percent(estimate, low).text} to {percent(estimate, high).text}",
        f"of consecutive tokens {what} (layers {found.layer_ids[low]} and "
        f"{found.layer_ids[high]}, the least and the most); at random {random:.1%}.",
    )


def _engine(analysis: Analysis) -> Iterator[Finding]:
    timed, ahead, judged = analysis.timing, analysis.lookahead, analysis.speculation
    if timed is not None and timed.groups:
        decode = [group for group in timed.groups if group.phase == "decode"] or timed.groups
        group = max(decode, key=lambda group: group.steps)
        low, high = CITED_RANGE
        yield Finding(
            "What does routing cost?",
            f"{percent(group.total_share_of_moe['overhead'], 0).text} of the MoE layer’s time",
            f"is routing, dispatch and combine ({group.label}, {group.steps:,} steps; "
            f"{percent(group.total_share_of_layer['overhead'], 0).text} of the decoder layer). "
            f"Cited for large deployments: {low:.0f}-{high:.0f} %, communication included.",
        )
    if ahead is not None:
        recall, hop = ahead.recall, ahead.hops[0]
        best = max(recall.predictions, key=lambda p: float(p.by_hop.value[hop - 1]))
        yield Finding(
            "How far ahead does a gate see?",
            f"{percent(best.by_hop, hop - 1).text} {recall.label}, {hop} ahead",
            f"({best.label}); {ahead.hops[-1]} ahead "
            f"{percent(best.by_hop, ahead.hops[-1] - 1).text}. Marginal "
            f"{percent(recall.marginal_by_hop, hop - 1).text}, uniform {recall.uniform:.1%}.",
        )
    if judged is not None:
        yield Finding("Would speculation pay?", "Yes." if judged.pays else "No.", judged.verdict)


def _compared(compared: Compared) -> Iterator[Finding]:
    found, (first, second) = compared.comparison, compared.comparison.names
    same = found.agreement
    question = f"Does {second} route as {first}?"
    parts = []
    if same is not None:
        if not np.isnan(same.chance_first).any():
            parts.append(
                f"first choices are the same for {same.same_first.value.mean():.1%} of them "
                f"(paired at random: {same.chance_first.mean():.1%})"
            )
        parts.append(
            f"the whole set for {same.same_set.value.mean():.1%} ({same.chance_set.mean():.1%})"
        )
        worst = int(same.overlap.value.argmin())
        answer = f"{same.overlap.value.mean():.1%} of the experts of the same tokens are the same"
        text = (
            f"(paired at random: {same.chance_overlap.mean():.1%}); least at layer "
            f"{same.layer_ids[worst]}, {percent(same.overlap, worst).text}. Of {same.tokens:,} "
            f"common tokens, {'; '.join(parts)}."
        )
    else:
        answer, text = "The same tokens cannot be compared", f"({found.missing['agreement']})."
    loads = list(found.differences.values())
    if loads:
        text += f" By {_beyond(loads)}, {_bits_beside(loads)}"
    if found.transfer is not None:
        measure = found.transfer.measures[0]
        own, other = (percent(measure.hop, (i, 1, 0)).text for i in (1, 0))
        text += (
            f" A table learnt on {first} predicts {second} with {other} "
            f"({measure.name.replace('_', ' ')}), its own with {own}, the marginal with "
            f"{percent(measure.marginal, (1, 1, 0)).text}."
        )
    yield Finding(question, answer, text)
