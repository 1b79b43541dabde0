"""An analysis as text for a terminal, and as JSON."""

from __future__ import annotations

from typing import Any

from routestats.errors import InvalidTypeError
from routestats.report._analysis import Analysis
from routestats.report._registry import found_in, restrictions, results
from routestats.result import plain


def summary(analysis: Analysis) -> str:
    """Text for a terminal.

    Returns
    -------
    str
        Every result's own summary, what is missing, and whether the data are sound.
    """
    check = _analysis(analysis).verification
    sound = "sound" if check.ok else "NOT SOUND: see routestats verify"
    if not check.complete:
        sound += ", INCOMPLETE"
    texts = [f"{analysis.trace!r}: {sound}"]
    if less := restrictions(analysis):
        texts.append(" ".join(less))
    for part, found in found_in(analysis):
        texts += part.texts(found, analysis)
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
        "run": plain(_analysis(analysis).trace.info),
        "verification": analysis.verification.to_dict(),
        "results": {name: result.to_dict() for name, result in results(analysis).items()},
        "missing": analysis.missing,
        "restrictions": restrictions(analysis),
    }


def _analysis(analysis: object) -> Analysis:
    if not isinstance(analysis, Analysis):
        raise InvalidTypeError(f"analysis: expected an Analysis, got {type(analysis).__name__}")
    return analysis
