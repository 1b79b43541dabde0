"""Which rows and layers of a source a trace shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from routestats.arguments import check_integers, is_iterable
from routestats.errors import InvalidTypeError, InvalidValueError, one_of
from routestats.schema import PHASES


@dataclass(frozen=True, slots=True)
class Selection:
    """The domains, phases, requests and layers that a trace shows; None is all of them."""

    domains: tuple[str, ...]
    phases: frozenset[int] | None = None
    requests: frozenset[str] | None = None
    layers: tuple[int, ...] | None = None

    @property
    def all_rows(self) -> bool:
        return self.phases is None and self.requests is None

    def narrowed(
        self,
        num_layers: int,
        *,
        domain: str | Sequence[str] | None,
        phase: str | Sequence[str] | None,
        requests: Iterable[str] | None,
        layers: slice | Sequence[int] | None,
    ) -> Selection:
        """What meets these conditions, too; `num_layers` are those of the source."""
        chosen = self
        if domain is not None:
            names = as_names("domain", domain)
            check_known("domain", names, self.domains)
            chosen = replace(chosen, domains=tuple(d for d in self.domains if d in names))
        if phase is not None:
            names = as_names("phase", phase)
            check_known("phase", names, PHASES)
            codes = frozenset(PHASES.index(name) for name in names)
            chosen = replace(
                chosen, phases=codes if chosen.phases is None else chosen.phases & codes
            )
        if requests is not None:
            ids = frozenset(as_names("requests", requests))
            chosen = replace(
                chosen, requests=ids if chosen.requests is None else chosen.requests & ids
            )
        if layers is not None:
            now = chosen.layers or tuple(range(num_layers))
            chosen = replace(chosen, layers=_layers(layers, now))
        return chosen


def as_names(what: str, names: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        return (names,)
    found = tuple(names) if is_iterable(names) else None
    if found is None or not all(isinstance(name, str) for name in found):
        raise InvalidTypeError(f"{what}: expected a name or names, got {names!r}")
    return found


def check_known(what: str, names: tuple[str, ...], choices: tuple[str, ...]) -> None:
    for name in names:
        if name not in choices:
            raise InvalidValueError(f"{what}: {one_of(choices, name)}")


def _layers(layers: slice | Sequence[int], now: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(layers, slice):
        picked = now[layers]
    else:
        chosen = check_integers("layers", layers, 0)
        for i in chosen:
            if i >= len(now):
                raise InvalidValueError(f"layers: expected 0 to {len(now) - 1}, got {i}")
        picked = tuple(now[i] for i in chosen)
    if not picked or list(picked) != sorted(set(picked)):
        raise InvalidValueError(f"layers: expected some, in ascending order, got {layers!r}")
    return picked
