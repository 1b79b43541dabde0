"""Whatever an engine runs, the assembler gives what the readable one gives, request by request."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import assembler_reference
import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from routestats.engines._assembler import RowAssembler
from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows

COUNTERS = (
    "requests_seen",
    "duplicate_rows",
    "rejected_rows",
    "overrun_rows",
    "unconfirmed_rows",
    "foreign_rows",
    "unknown_requests",
    "synthetic_requests",
    "illegal_domain_requests",
)
NAMES = [f"{name}-0000000{i}" for i, name in enumerate(["a", "b", "rs:code:c", "rs:/:d", "2_e"])]
KINDS = st.sampled_from(
    ["step"] * 5 + ["as planned"] * 4 + ["decode"] * 6 + ["again"] * 2 + ["no rows", "take", "take"]
)
# A seed for each step: one draw for every decision would be thousands of them.
HISTORIES = st.lists(st.tuples(KINDS, st.integers(0, 2**32 - 1)), max_size=40)


@dataclass
class Engine:
    """What may come next, mostly as an engine would have it."""

    random: Random = field(default_factory=Random)
    reached: dict[str, int] = field(default_factory=dict)  # of the requests under way
    steps: list[StepRows] = field(default_factory=list)

    def chance(self, of: int) -> bool:
        return self.random.randrange(of) == 0

    def tokens(self, count: int) -> list[int]:
        return [self.random.randrange(7) for _ in range(count)]  # few, so that some end a request

    def new(self, name: str) -> NewRequest:
        prompt = np.array(self.tokens(self.random.randint(1, 6)), np.int32)
        last = None if self.chance(2) else self.random.randint(-1, 20)
        stop = frozenset(self.tokens(self.random.randint(0, 2)))
        return NewRequest(name, self.random.choice(["d", "code"]), prompt, stop, last)

    def changes(self) -> dict[str, Any]:
        """Requests that end and begin, perhaps with one name."""
        finished = [name for name in NAMES if self.chance(12)]  # perhaps never begun
        for name in finished:
            self.reached.pop(name, None)
        # One that is under way begins again: it was preempted.
        new = [self.new(name) for name in NAMES if self.chance(4)]
        for one in new:
            self.reached.setdefault(one.request_id, self.random.choice([0, 0, 0, 2]))  # cached
        others = {"unknown": int(self.chance(9)), "synthetic": int(self.chance(9))}
        return {"new": new, "finished": finished, **others}

    def names(self, kind: str) -> list[str]:
        """Of the requests in a step."""
        if kind == "again":  # of one that ended since, too
            return list(self.steps[-1].request_ids) if self.steps else []
        if kind == "step":  # of those that the capture never saw begin, too
            return self.random.sample(NAMES, self.random.randint(1, len(NAMES)))
        names = list(self.reached)
        if kind == "as planned":
            self.random.shuffle(names)
        return names

    def step(self, kind: str) -> StepRows:
        decode = kind in ("decode", "again")
        changes = {} if decode and not self.chance(4) else self.changes()
        ids, counts, positions, drafts = [], [], list[int](), dict[str, int]()
        for name in self.names(kind):
            start, count, accepted = self.reached.get(name, 3), 1, 0
            if not decode:
                count = self.random.randint(1, 5)
                if kind == "step" and self.chance(4):  # a preemption, or rows that nobody saw
                    start = max(start + self.random.randint(-6, 2), 0)
                if self.chance(2):
                    drafts[name] = self.random.randint(0, count)
                    accepted = drafts[name]
                    if kind == "step":
                        accepted = self.random.randint(0, accepted)
            if name in self.reached:
                self.reached[name] = start + count - drafts.get(name, 0) + accepted
            ids.append(name)
            counts.append(count)
            positions += range(start, start + count)
        tokens = np.array(self.tokens(len(positions)), np.int32)
        step = StepRows(
            ids,
            counts,
            np.array(positions, np.int32),
            tokens,
            drafts=drafts,
            synthetic_rows=int(self.chance(9)),
            **changes,
        )
        self.steps.append(step)
        return step

    def sample(self) -> None:
        """What the sampler gave comes later, if at all."""
        for step in self.steps[-2:]:
            for name in step.drafts:
                if self.chance(3):
                    step.sampled[name] = self.random.randint(0, 5)


def columns_of(steps: list[StepRows], first: int) -> dict[str, Any]:
    """The columns of some steps; an expert tells the row apart."""
    rows = sum(step.rows for step in steps)
    numbers = np.arange(2 * first, 2 * (first + rows), dtype=np.uint16).reshape(rows, 2, 1)
    ran = [step for step in steps if step.rows]
    return {
        "positions": np.concatenate([step.positions for step in ran]),
        "token_ids": np.concatenate([step.token_ids for step in ran]),
        "experts": numbers,
        "weights": numbers.astype(np.float16),
    }


class Both:
    """The assembler, which is given pieces of several steps, and the reference, step by step."""

    def __init__(self) -> None:
        self.assembler, self.reference = RowAssembler(), assembler_reference.RowAssembler()
        self.waiting: list[StepRows] = []
        self.rows = 0

    def add(self, step: StepRows) -> None:
        self.waiting.append(step)

    def hand_over(self) -> None:
        """Give both what has come."""
        steps, self.waiting = self.waiting, []
        first = self.rows
        for step in steps:
            if step.rows:
                self.reference.add(step, columns_of([step], self.rows))
                self.rows += step.rows
            else:
                self.reference.note(step)
        if self.rows > first:
            self.assembler.add_steps(steps, columns_of(steps, first), ring_row=first)
        else:
            for step in steps:
                self.assembler.note(step)

    def settle(self) -> None:
        self.hand_over()
        self.assembler.settle()
        self.reference.settle()

    def take(self, held_from: int) -> None:
        self.hand_over()
        numbers = list(self.assembler.let_through())
        found, expected = self.assembler.take_batches(), self.reference.take_batches()
        assert [batch.domain for batch in found] == [batch.domain for batch in expected]
        for (ring_rows, experts), ours, theirs in zip(numbers, found, expected, strict=True):
            assert ours.request_ids == theirs.request_ids
            for name, values in theirs.columns().items():
                np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)
            assert experts is ours.experts
            row = ours.experts[:, 0, 0].astype(np.int64) // 2
            # Those that waited when the piece before ended are in the ring no more.
            np.testing.assert_array_equal(ring_rows, np.where(row < held_from, -1, row))
        assert self.assembler.take_records() == self.reference.take_records()
        for counter in COUNTERS:
            assert getattr(self.assembler, counter) == getattr(self.reference, counter), counter


@settings(max_examples=400, deadline=None)
@given(history=HISTORIES)
def test_batches_records_and_counters_are_those_of_the_reference(
    history: list[tuple[str, int]],
) -> None:
    engine, both, held_from = Engine(), Both(), 0
    for kind, seed in history:
        engine.random.seed(seed)
        if kind == "take":
            if engine.chance(2):
                both.settle()
            both.take(held_from)
            held_from = both.rows
        elif kind == "no rows":
            both.add(StepRows(**engine.changes()))
        else:
            both.add(engine.step(kind))
            if engine.chance(3):
                both.hand_over()
        # Before the next step, as the sampler does: whoever has taken in a step may still be told.
        engine.sample()
    both.hand_over()
    both.assembler.finish_all()
    both.reference.finish_all()
    both.take(held_from)
    for counter in COUNTERS:
        if getattr(both.reference, counter):
            event(counter)
