"""New requests of an engine, and what can be read from a request's id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from routestats.schema import is_domain

# vLLM appends "-" and eight characters to a request's id, and puts "<index>_" before it when the
# request asks for several samples. Ids come from clients, and `int` refuses very long numbers.
_SAMPLE = r"(?:(?P<sample>[0-9]{1,9})_)?"
_ENGINE_ID = re.compile(rf"{_SAMPLE}(?P<external>.+)-[0-9a-f]{{8}}", re.DOTALL)
# What vLLM's servers put before a client's id.
_SERVERS = (
    "cmpl",
    "chatcmpl",
    "generate-tokens",
    "decision",
    "generative-scoring",
    "transcribe",
    "translate",
)
_NAMES_DOMAIN = re.compile(rf"{_SAMPLE}(?:(?:{'|'.join(_SERVERS)})-)?rs:(?:(?P<domain>[^:]*):)?")
_LONGEST_ID = 1000
_HASHED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request at its first scheduling.

    Attributes
    ----------
    request_id : str
        The engine's. A part of it comes from a client, so it may hold any text.
    domain : str
        The capture's; the id may name another.
    prompt_token_ids : sequence or ndarray of int
        The engine's own, which may grow after the request has begun.
    stop_ids : frozenset of int
        Token ids that end it.
    last_position : int or None
        The largest position that can be run, by the request's own limits.
    prompt_tokens : int
        Length of the prompt at the beginning.
    """

    request_id: str
    domain: str
    prompt_token_ids: Sequence[int] | npt.NDArray[np.int32]
    stop_ids: frozenset[int] = frozenset()
    last_position: int | None = None
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_tokens", len(self.prompt_token_ids))


def external_id(request_id: str) -> tuple[str, int]:
    """The id under which the caller knows an engine's request, and the index of the sample."""
    match = _ENGINE_ID.fullmatch(request_id)
    if match is None:
        return request_id, 0
    return match["external"], int(match["sample"] or 0)


def named_domain(request_id: str) -> str | None:
    """The text that an id gives as its domain, legal or not; None if it gives none.

    An id gives one as ``rs:<domain>:<anything>``, at its start or after what vLLM puts there.

    >>> named_domain("cmpl-rs:humaneval:17-0-1a2b3c4d")
    'humaneval'
    """
    match = _NAMES_DOMAIN.match(request_id)
    return None if match is None else match["domain"] or ""


def domain_of(request_id: str, default: str) -> str:
    """The domain that a request id names; `default` if it names none, or an illegal one.

    >>> domain_of("rs:my-code:17-1a2b3c4d", "default")
    'my-code'
    """
    named = named_domain(request_id)
    return named if named is not None and is_domain(named) else default


def id_for_files(request_id: str) -> str:
    """`request_id` as files hold it: valid UTF-8 of limited length.

    Different ids keep different names.
    """
    name = request_id.encode("utf-8", "backslashreplace").decode()
    if name == request_id and len(name) <= _LONGEST_ID:
        return name
    exact = request_id.encode("utf-8", "surrogatepass")
    return f"{name[:_LONGEST_ID]}...{blake2b(exact, digest_size=8).hexdigest()}"


def prompt_group(
    token_ids: Sequence[int] | npt.NDArray[np.integer[Any]], length: int | None = None
) -> str:
    """The group of a request, a name for its prompt: 16 hexadecimal digits of a BLAKE2b hash.

    The first `length` token ids, or all, are hashed as little-endian int32, so every engine gives a
    prompt the same name.
    """
    digest = blake2b(digest_size=8)
    end = len(token_ids) if length is None else length
    # In parts: a long list becomes an array with the interpreter's lock held, a hash lets go of it.
    for start in range(0, end, _HASHED_AT_ONCE):
        part = token_ids[start : min(start + _HASHED_AT_ONCE, end)]
        digest.update(np.ascontiguousarray(part, dtype="<i4").data)
    return digest.hexdigest()
