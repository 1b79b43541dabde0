"""An analysis as text for a terminal, and as JSON."""

from __future__ import annotations

from typing import Any

from routestats.report._analysis import Analysis
from routestats.report._restrictions import restrictions
from routestats.result import Result, plain


def parts(analysis: Analysis) -> dict[str, Result]:
    """The results of `analysis` by name, in the order in which a reader asks."""
    found: dict[str, Result | None] = {
        "load": analysis.load,
        **{f"load, {domain}": load for domain, load in analysis.load_by_domain.items()},
        "prediction of first choices": analysis.first_choices,
        "prediction": analysis.accuracy,
        "information": analysis.information,
        **{f"paths, {kind}": result for kind, result in analysis.paths.items()},
        **{f"domains, {d.domains[0]} {d.domains[1]}, {d.phase}": d for d in analysis.differences},
        "transfer": analysis.transfer,
        "repetition": analysis.repetition,
        "segment routing": analysis.segments,
        "correlation": analysis.correlation,
        "co-activation": analysis.coactivation,
        "specialization": analysis.specialization,
        "timing": analysis.timing,
        "lookahead": analysis.lookahead,
        "confidence of gates": analysis.confidence,
        "speculation": analysis.speculation,
    }
    return {name: result for name, result in found.items() if result is not None}


def summary(analysis: Analysis) -> str:
    """Text for a terminal.

    Returns
    -------
    str
        Every result's own summary, what is missing, and whether the data are sound.
    """
    check = analysis.verification
    sound = "sound" if check.ok else "NOT SOUND: see routestats verify"
    if not check.complete:
        sound += ", INCOMPLETE"
    texts = [f"{analysis.trace!r}: {sound}"]
    if less := restrictions(analysis):
        texts.append(" ".join(less))
    texts += [result.summary() for result in parts(analysis).values()]
    texts += [f"{name}: not computed: {why}" for name, why in analysis.missing.items()]
    return "\n\n".join(texts)


def to_dict(analysis: Analysis) -> dict[str, Any]:
    """All results in types that JSON knows.

    Returns
    -------
    dict
        Run, verification, every result and what is missing.
    """
    return {
        "run": plain(analysis.trace.info),
        "verification": analysis.verification.to_dict(),
        "results": {name: result.to_dict() for name, result in parts(analysis).items()},
        "missing": analysis.missing,
        "restrictions": restrictions(analysis),
    }
