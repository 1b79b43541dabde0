"""What a step ran, read from vLLM's model runner right after ``execute_model`` returns."""

from __future__ import annotations

from typing import Any

from routestats.engines._requests import NewRequest
from routestats.engines._steps import StepRows
from routestats.errors import CaptureError


def refuse_layout(vllm_config: Any) -> None:
    """Raise `CaptureError` if the engine spreads a step's rows in a way that is not understood."""
    parallel = vllm_config.parallel_config
    for name in (
        "data_parallel_size",
        "pipeline_parallel_size",
        "prefill_context_parallel_size",
        "decode_context_parallel_size",
    ):
        size = getattr(parallel, name, 1)
        if size > 1:
            raise CaptureError(f"{name}={size}: capture understands only 1")
    if getattr(parallel, "use_sequence_parallel_moe", False):
        raise CaptureError(
            "sequence-parallel MoE (use_sequence_parallel_moe): capture does not understand "
            "how its rows are spread"
        )
    if getattr(parallel, "use_ubatching", False) or getattr(parallel, "enable_dbo", False):
        raise CaptureError("enable_dbo: capture does not understand micro-batched steps")


def requests_of(scheduler_output: Any, domain: str, max_model_len: int) -> StepRows:
    """The requests that end and begin with a step; its rows are not known yet.

    Requests of a kind that capture does not understand are counted and left out, because a client
    chooses the kind.
    """
    begun = scheduler_output.scheduled_new_reqs
    # A prompt of embeddings has no token ids, a pooling request no sampling parameters.
    known = [r for r in begun if r.prompt_token_ids is not None and r.sampling_params is not None]
    return StepRows(
        new=[_new_request(request, domain, max_model_len) for request in known],
        finished=list(scheduler_output.finished_req_ids),
        unknown=len(begun) - len(known),
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


def read_rows(step: StepRows, runner: Any, scheduler_output: Any) -> tuple[StepRows, Any, Any]:
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
    step = StepRows(
        request_ids=batch.req_ids[:requests],  # a copy
        counts=bounds[1 : requests + 1] - bounds[:requests],
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


def note_sampled(step: StepRows, output: Any) -> None:
    """Tell `step` how many tokens the sampler gave each of its requests with drafts."""
    if not step.drafts:
        return
    tokens = getattr(output, "sampled_token_ids", None)
    if tokens is not None:
        index = output.req_id_to_index
        step.sampled.update(
            {
                request_id: len(tokens[index[request_id]])
                for request_id in step.drafts
                if request_id in index
            }
        )
    elif (fetch := getattr(output, "get_output", None)) is not None:
        # The sampled tokens are still on their way: look when the engine fetches them.
        def get_output() -> Any:
            fetched = fetch()
            note_sampled(step, fetched)
            return fetched

        output.get_output = get_output
