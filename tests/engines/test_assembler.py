"""Which rows of an engine's steps are let through."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest

from routestats.engines._assembler import RowAssembler
from routestats.engines._requests import NewRequest, domain_of, external_id, prompt_group
from routestats.engines._steps import StepRows
from routestats.errors import CaptureError
from routestats.schema import DECODE, PREFILL

A, B = "a-00000001", "b-00000002"
STOP = 99


def new(request_id: str, prompt: int, domain: str = "d", last: int | None = None) -> NewRequest:
    tokens = np.arange(prompt, dtype=np.int32)
    return NewRequest(request_id, domain, tokens, frozenset({STOP}), last)


def columns(step: StepRows, experts: np.ndarray, number: int = 0) -> dict[str, np.ndarray]:
    """What the assembler is given of a step: weights are experts."""
    assert step.positions is not None
    assert step.token_ids is not None
    return {
        "positions": step.positions,
        "token_ids": step.token_ids,
        "step": np.full(len(step.positions), number, np.uint32),
        "experts": experts,
        "weights": experts.astype(np.float16),
    }


class Engine:
    """Feeds an assembler; the expert of a row tells at which step it was run."""

    def __init__(self) -> None:
        self.assembler = RowAssembler()
        self.steps = 0

    def step(
        self,
        *spans: tuple[str, int, int],
        new: list[NewRequest] | None = None,
        finished: tuple[str, ...] = (),
        drafts: dict[str, int] | None = None,
        tokens: list[int] | None = None,
    ) -> StepRows:
        positions = [p for _, start, stop in spans for p in range(start, stop)]
        step = StepRows(
            request_ids=[r for r, _, _ in spans],
            counts=[stop - start for _, start, stop in spans],
            positions=np.array(positions, np.int32),
            token_ids=np.array(tokens if tokens is not None else positions, np.int32),
            drafts=drafts or {},
            new=new or [],
            finished=finished,
        )
        experts = np.full((len(positions), 2, 1), self.steps, np.uint8)
        self.assembler.add(step, columns(step, experts, self.steps))
        self.steps += 1
        return step

    def rows(self) -> list[tuple[str, str, int, int, int]]:
        """(domain, request, position, phase, step) of every row let through so far."""
        found = []
        for batch in self.assembler.take_batches():
            assert (batch.experts == batch.experts[:, :1, :1]).all()
            assert batch.weights is not None
            assert np.array_equal(batch.weights, batch.experts.astype(np.float16))
            assert batch.step is not None
            assert np.array_equal(batch.step, batch.experts[:, 0, 0])
            found += [
                (batch.domain, batch.request_ids[i], int(p), int(phase), int(e))
                for i, p, phase, e in zip(
                    batch.request_index,
                    batch.positions,
                    batch.phase,
                    batch.experts[:, 0, 0],
                    strict=True,
                )
            ]
        return found


def test_chunked_prefill_then_decode() -> None:
    engine = Engine()
    engine.step((A, 0, 3), new=[new(A, 5)])
    engine.step((A, 3, 5))
    engine.step((A, 5, 6))
    assert engine.rows() == [
        *[("d", A, p, PREFILL, 0) for p in range(3)],
        *[("d", A, p, PREFILL, 1) for p in (3, 4)],
        ("d", A, 5, DECODE, 2),
    ]
    engine.assembler.finish_all()
    (record,) = engine.assembler.take_records()
    assert (record.prompt_tokens, record.output_tokens, record.rows) == (5, 2, 6)
    assert record.external_id == "a"


def test_prefix_cached_tokens_have_no_rows() -> None:
    engine = Engine()
    engine.step((A, 4, 6), new=[new(A, 6)])
    assert [row[2] for row in engine.rows()] == [4, 5]
    engine.assembler.finish_all()
    (record,) = engine.assembler.take_records()
    assert (record.cached_tokens, record.output_tokens, record.rows) == (4, 1, 2)


def test_after_a_preemption_the_first_row_wins() -> None:
    engine = Engine()
    engine.step((A, 0, 4), new=[new(A, 4)])
    engine.step((A, 4, 5))
    engine.step((A, 0, 6))  # run again from the start, and one further
    assert [(row[2], row[4]) for row in engine.rows()] == [
        (0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 2),
    ]  # fmt: skip
    assert engine.assembler.duplicate_rows == 5


def test_a_preempted_request_may_come_as_new_again() -> None:
    engine = Engine()
    engine.step((A, 0, 4), new=[new(A, 4)])
    engine.step((A, 0, 5), new=[new(A, 4)])
    assert [row[2] for row in engine.rows()] == [0, 1, 2, 3, 4]
    assert engine.assembler.requests_seen == 1


def test_drafts_wait_for_the_next_step() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    engine.step((A, 2, 6), drafts={A: 3})
    assert [row[2] for row in engine.rows()] == [0, 1, 2]
    engine.step((A, 4, 5))  # one of three drafts was accepted
    assert [(row[2], row[4]) for row in engine.rows()] == [(3, 1), (4, 2)]
    assert engine.assembler.rejected_rows == 2


@pytest.mark.parametrize(("sampled", "last"), [(1, 2), (2, 3), (4, 5)])
def test_the_last_steps_drafts_are_told_by_the_sampler(sampled: int, last: int) -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    step = engine.step((A, 2, 6), drafts={A: 3})
    step.sampled[A] = sampled
    engine.step((B, 0, 1), new=[new(B, 1)], finished=(A,))
    assert [row[2] for row in engine.rows() if row[1] == A] == list(range(last + 1))
    (record,) = engine.assembler.take_records()
    assert record.output_tokens == last + 2 - 2
    assert engine.assembler.rejected_rows == 5 - last
    assert engine.assembler.unconfirmed_rows == 0


def test_a_request_waits_for_the_output_of_a_step_that_was_scheduled_ahead() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2, last=3)])
    engine.step((A, 2, 4)).sampled[A] = 2
    ahead = engine.step((A, 4, 8), drafts={A: 3})
    engine.step((B, 0, 1), new=[new(B, 1)], finished=(A,))  # before that output is fetched
    engine.assembler.settle()
    assert engine.assembler.take_records() == []
    ahead.sampled[A] = 1
    engine.assembler.settle()
    assert [record.request_id for record in engine.assembler.take_records()] == [A]
    assert [row[2] for row in engine.rows() if row[1] == A] == [0, 1, 2, 3]
    assert (engine.assembler.overrun_rows, engine.assembler.rejected_rows) == (1, 3)
    assert engine.assembler.unconfirmed_rows == 0


def test_an_id_that_is_given_again_ends_the_request_that_waits() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    engine.step((A, 2, 6), drafts={A: 3})
    engine.step((A, 0, 2), new=[new(A, 2)], finished=(A,))
    engine.assembler.settle()
    assert len(engine.assembler.take_records()) == 1
    assert (engine.assembler.requests_seen, engine.assembler.unconfirmed_rows) == (2, 3)


def test_accepted_drafts_past_the_end_are_left_out() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2, last=3)])
    step = engine.step((A, 2, 6), drafts={A: 3})
    step.sampled[A] = 4
    engine.assembler.finish_all()
    assert [row[2] for row in engine.rows()] == [0, 1, 2, 3]


def test_an_accepted_stop_token_is_not_run() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    step = engine.step((A, 2, 6), drafts={A: 3}, tokens=[7, 8, STOP, 9])
    step.sampled[A] = 4
    engine.assembler.finish_all()
    assert [row[2] for row in engine.rows()] == [0, 1, 2, 3]


def test_drafts_nobody_confirms_are_left_out_and_counted() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    engine.step((A, 2, 6), drafts={A: 3})
    engine.assembler.finish_all()
    assert [row[2] for row in engine.rows()] == [0, 1, 2]
    assert engine.assembler.unconfirmed_rows == 3


def test_drafts_are_run_again_after_a_preemption() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    engine.step((A, 2, 5), drafts={A: 2})
    engine.step((A, 0, 4))
    assert [(row[2], row[4]) for row in engine.rows()] == [(0, 0), (1, 0), (2, 1), (3, 2)]


def test_a_step_past_a_stop_token_is_left_out() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)], tokens=[STOP, 1])  # a prompt may hold it
    engine.step((A, 2, 3), tokens=[STOP])
    assert [row[2] for row in engine.rows()] == [0, 1]
    assert engine.assembler.overrun_rows == 1


def test_requests_under_way_before_the_capture_are_left_out() -> None:
    engine = Engine()
    engine.step((A, 7, 8), (B, 0, 2), new=[new(B, 2)])
    assert {row[1] for row in engine.rows()} == {B}
    assert engine.assembler.foreign_rows == 1


def test_drafts_stand_before_the_rows_of_the_step_that_confirms_them() -> None:
    engine = Engine()
    engine.step((A, 0, 3), (B, 0, 3), new=[new(A, 1), new(B, 1)], drafts={A: 2, B: 2})
    engine.step((B, 3, 4), (A, 3, 4))
    rows = [row[1:3] for row in engine.rows()]
    assert rows == [(A, 0), (B, 0), *[(B, p) for p in (1, 2, 3)], *[(A, p) for p in (1, 2, 3)]]


def test_a_request_may_begin_under_the_name_of_one_that_has_ended() -> None:
    engine = Engine()
    engine.step((A, 0, 2), new=[new(A, 2)])
    engine.step((A, 2, 3))
    engine.step((A, 0, 1), new=[new(A, 1)], finished=(A,))
    (batch,) = engine.assembler.take_batches()
    assert batch.request_ids == (A,)
    assert batch.positions.tolist() == [0, 1, 2, 0]
    assert engine.assembler.requests_seen == 2


def test_what_a_client_asks_for_ends_no_capture() -> None:
    """Stop tokens that no tokenizer has, and a limit that no machine counts to."""
    tokens = np.arange(2, dtype=np.int32)
    huge = NewRequest(A, "d", tokens, frozenset({-1, 2**40, STOP}), 2**80)
    engine = Engine()
    engine.step((A, 0, 2), new=[huge])
    engine.step((A, 2, 4), tokens=[7, STOP])
    assert [row[2] for row in engine.rows()] == [0, 1, 2]


def test_a_prompt_that_grows_later_is_that_of_the_beginning() -> None:
    """vLLM's own list, to which it adds what a session goes on with."""
    prompt = [1, 2, 3]
    engine = Engine()
    begun = NewRequest(A, "d", prompt)
    prompt.append(4)
    engine.step((A, 0, 3), new=[begun])
    engine.assembler.finish_all()
    (record,) = engine.assembler.take_records()
    assert (record.prompt_tokens, record.group) == (3, prompt_group([1, 2, 3]))


def test_the_group_of_a_long_prompt_is_that_of_all_its_tokens() -> None:
    tokens = list(range(100_000))
    exact = blake2b(np.array(tokens, "<i4").tobytes(), digest_size=8).hexdigest()
    assert prompt_group(tokens) == prompt_group(np.array(tokens, np.int64)) == exact
    assert prompt_group(tokens, 99_999) != exact


def test_domains_become_batches_of_their_own() -> None:
    engine = Engine()
    engine.step((A, 0, 2), (B, 0, 1), new=[new(A, 2, "code"), new(B, 1, "maths")])
    assert {(row[0], row[1]) for row in engine.rows()} == {("code", A), ("maths", B)}


def test_an_aborted_prefill_is_recorded_as_such() -> None:
    engine = Engine()
    engine.step((A, 0, 3), new=[new(A, 9)])
    engine.assembler.finish_all()
    (record,) = engine.assembler.take_records()
    assert (record.finish_reason, record.output_tokens) == ("abort", 0)


def test_positions_that_jump_are_refused() -> None:
    step = StepRows([A], [2], np.array([0, 5], np.int32), np.zeros(2, np.int32), new=[new(A, 2)])
    with pytest.raises(CaptureError, match="expected consecutive positions from 0, got 5"):
        RowAssembler().add(step, columns(step, np.zeros((2, 1, 1), np.uint8)))


def test_rows_and_requests_must_agree() -> None:
    step = StepRows([A], [2], np.arange(2, dtype=np.int32), np.zeros(2, np.int32), new=[new(A, 2)])
    with pytest.raises(CaptureError, match="3 rows were captured"):
        RowAssembler().add(step, columns(step, np.zeros((3, 1, 1), np.uint8)))


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("12-1a2b3c4d", ("12", 0)),
        ("3_12-1a2b3c4d", ("12", 3)),
        ("cmpl-rs:x:1-0-1a2b3c4d", ("cmpl-rs:x:1-0", 0)),
        ("as-given", ("as-given", 0)),
    ],
)
def test_external_id(request_id: str, expected: tuple[str, int]) -> None:
    assert external_id(request_id) == expected


@pytest.mark.parametrize(
    ("request_id", "expected"),
    [
        ("cmpl-rs:humaneval:17-0-1a2b3c4d", "humaneval"),
        ("chatcmpl-rs:my.set_2:x-1a2b3c4d", "my.set_2"),
        ("rs:maths:1-1a2b3c4d", "maths"),
        ("cmpl-tars:x:1-0-1a2b3c4d", "fallback"),
        ("rs::1-1a2b3c4d", "fallback"),
    ],
)
def test_domain_of(request_id: str, expected: str) -> None:
    assert domain_of(request_id, "fallback") == expected
