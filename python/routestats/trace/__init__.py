"""Traces: written by capture, read back lazily, and proven complete."""

from routestats.trace._checks import Check as Check
from routestats.trace._checks import VerifyResult as VerifyResult
from routestats.trace._join import join as join
from routestats.trace._order import sort_by_weight as sort_by_weight
from routestats.trace._trace import Trace as Trace
from routestats.trace._verify import verify as verify
from routestats.trace._writer import TraceWriter as TraceWriter

__all__ = ["Check", "Trace", "TraceWriter", "VerifyResult", "join", "sort_by_weight", "verify"]
