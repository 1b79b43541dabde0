"""What a step ran, read from vLLM's model runner right after ``execute_model`` returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.errors import CaptureError

# Requests that vLLM makes up to warm up, or to keep other ranks company: ``_warmup_0_``,
# ``_v2_mixed_warmup_decode_``, ``_dummy_req_0``. A client's id ends in "-" and eight characters.
_SYNTHETIC = re.compile(r"_[a-z0-9_]*(?:warm_?up|dummy)[a-z0-9_]*")


def is_synthetic(request_id: str) -> bool:
    """Whether vLLM made the request up itself.

    Never so where ids reach the worker as clients choose them
    (``VLLM_DISABLE_REQUEST_ID_RANDOMIZATION``): one of them might look like vLLM's own.
    """
    from vllm import envs

    if getattr(envs, "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION", False):
        return False
    return _SYNTHETIC.fullmatch(request_id) is not None


@dataclass(slots=True)
class LeftOut:
    """Ids of requests under way that a capture leaves out.

    Some engines give a preempted request as a new one again; it is counted once.
    """

    unknown: set[str] = field(default_factory=set)
    synthetic: set[str] = field(default_factory=set)


def requests_of(
    scheduler_output: Any, domain: str, max_model_len: int, left_out: LeftOut
) -> StepRows:
    """The requests that end and begin with a step; its rows are not known yet.

    Requests of a kind that capture does not understand are counted and left out, because a client
    chooses the kind; so are those that vLLM made up.

    Parameters
    ----------
    left_out : LeftOut
        It is brought up to date.
    """
    ended = list(scheduler_output.finished_req_ids)
    left_out.unknown.difference_update(ended)
    left_out.synthetic.difference_update(ended)
    new, unknown, synthetic = [], set[str](), set[str]()
    for request in scheduler_output.scheduled_new_reqs:
        if is_synthetic(request.req_id):
            synthetic.add(request.req_id)
        elif _is_understood(request):
            new.append(_new_request(request, domain, max_model_len))
        else:
            unknown.add(request.req_id)
    step = StepRows(
        new=new,
        finished=ended,
        unknown=len(unknown - left_out.unknown),
        synthetic=len(synthetic - left_out.synthetic),
    )
    left_out.unknown |= unknown
    left_out.synthetic |= synthetic
    return step


def _is_understood(request: Any) -> bool:
    """Whether a request samples from a prompt of tokens, and of nothing else.

    A pooling request has no sampling parameters, a prompt of embeddings no token ids, and the
    tokens that stand for an image are not what the model reads there.
    """
    return (
        request.prompt_token_ids is not None
        and request.sampling_params is not None
        and getattr(request, "prompt_embeds", None) is None
        and not getattr(request, "mm_features", None)
    )


def _new_request(request: Any, domain: str, max_model_len: int) -> NewRequest:
    prompt = request.prompt_token_ids  # as it is: to make an array of a long one takes too long
    params = request.sampling_params
    stop_ids = frozenset(
        token
        for token in (getattr(params, "eos_token_id", None), *(params.stop_token_ids or ()))
        if token is not None
    )
    # The last of T tokens is sampled and never run: positions end at T - 2.
    last = max_model_len - 2
    if params.max_tokens is not None:
        last = min(last, len(prompt) + params.max_tokens - 2)
    return NewRequest(request.req_id, domain, prompt, stop_ids, last)


def read_rows(
    step: StepRows, runner: Any, scheduler_output: Any, left_out: LeftOut
) -> tuple[StepRows, Any, Any]:
    """`step` with the rows that `runner` has just run, and its positions and token ids.

    They come from the buffers that the model was given, on its device. The scheduler's numbers are
    optimistic when it schedules ahead or speculates.
    """
    rows = scheduler_output.total_num_scheduled_tokens
    state = getattr(runner, "execute_model_state", None)
    batch = getattr(state, "input_batch", None)  # vLLM's second model runner keeps it there
    if batch is not None:
        if batch.num_tokens != rows:
            raise CaptureError(
                f"step: {rows} rows were scheduled, but {batch.num_tokens} ran; "
                "adaptive verification of drafts is not supported"
            )
        bounds = batch.query_start_loc_np
        input_ids, positions = batch.input_ids, batch.positions
    else:
        batch = runner.input_batch
        bounds = runner.query_start_loc.np
        input_ids, positions = runner.input_ids, runner.positions
    requests = batch.num_reqs
    request_ids = batch.req_ids[:requests]  # a copy
    counts = bounds[1 : requests + 1] - bounds[:requests]
    step = StepRows(
        request_ids=request_ids,
        counts=counts,
        synthetic=step.synthetic,
        synthetic_rows=_rows_of(left_out.synthetic, request_ids, counts),
        drafts={
            request_id: len(tokens)
            for request_id, tokens in scheduler_output.scheduled_spec_decode_tokens.items()
        },
        new=step.new,
        finished=step.finished,
        unknown=step.unknown,
    )
    if step.rows != rows:
        raise CaptureError(f"step: {rows} rows were scheduled, but its requests have {step.rows}")
    return step, getattr(positions, "gpu", positions), getattr(input_ids, "gpu", input_ids)


def _rows_of(some: Set[str], request_ids: Sequence[str], counts: Any) -> int:
    if not some:
        return 0
    return sum(int(n) for name, n in zip(request_ids, counts, strict=True) if name in some)


def note_sampled(step: StepRows, output: Any, fail: Callable[[Exception], None]) -> None:
    """Tell `step` how many tokens the sampler gave each of its requests with drafts.

    Parameters
    ----------
    step : StepRows
    output
        What ``sample_tokens`` returned: the output, or one that is still on its way; a rank that
        samples nothing has None, or an output without tokens.
    fail : function
        Called with what goes wrong when the engine fetches an output, on whichever thread.
    """
    if not step.drafts or output is None:
        return
    # What is on its way may have the tokens already, as an array that is still being written.
    if (fetch := getattr(output, "get_output", None)) is not None:

        def get_output() -> Any:
            fetched = fetch()
            try:
                _note_fetched(step, fetched)
            except Exception as error:  # the engine goes on whatever happens to the capture
                fail(error)
            return fetched

        output.get_output = get_output
    else:
        _note_fetched(step, output)


def _note_fetched(step: StepRows, output: Any) -> None:
    tokens = output.sampled_token_ids
    if tokens is None or len(tokens) == 0:
        return
    index = output.req_id_to_index
    step.sampled.update({name: len(tokens[index[name]]) for name in step.drafts if name in index})
