"""The loop: the same batches and the same steps whether or not it was interrupted."""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import MixtralForCausalLM

from .network import RouterTap, token_loss

LOG_FIELDS = ("step", "tokens", "loss", "balance", "lr", "seconds")
LONG_EVERY = 4
"""One step in so many runs half as many rows of twice the length, to reach later positions."""


@dataclass(frozen=True)
class Plan:
    """What is trained, and how. Equal plans and equal text give equal weights."""

    steps: int
    rows: int
    context: int
    learning_rate: float
    warmup: int
    decay: float
    balance: float
    weight_decay: float
    seed: int

    def rate(self, step: int) -> float:
        """Learning rate: up, level, and down to zero over the last `decay` of the steps.

        Level, so that a run which was begun with more steps than there is time for can be resumed
        with fewer, and is then the run that fewer steps would have been from the start.
        """
        down = max(1, round(self.steps * self.decay))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, (self.steps - step) / down)

    def tokens_of(self, step: int) -> tuple[int, int]:
        """Rows and length of a step's batch."""
        long = step % LONG_EVERY == LONG_EVERY - 1
        return (self.rows // 2, self.context * 2) if long else (self.rows, self.context)


class Batches:
    """Random windows over the sources, drawn from (seed, step) alone."""

    def __init__(
        self, tokens: Sequence[npt.NDArray[np.uint16]], shares: Sequence[float], plan: Plan
    ) -> None:
        self._tokens = tokens
        self._shares = np.asarray(shares) / np.sum(shares)
        self._plan = plan

    def __getitem__(self, step: int) -> Tensor:
        draw = np.random.default_rng([self._plan.seed, step])
        rows, length = self._plan.tokens_of(step)
        batch = np.empty((rows, length), np.int64)
        for row in batch:
            source = self._tokens[draw.choice(len(self._tokens), p=self._shares)]
            start = draw.integers(0, len(source) - length)
            row[:] = source[start : start + length]
        return torch.from_numpy(batch)


def train(
    model: MixtralForCausalLM,
    batches: Batches,
    plan: Plan,
    folder: Path,
    *,
    device: str,
    save_minutes: float = 5.0,
) -> float:
    """Train to the end of the plan, from the checkpoint in `folder` if there is one.

    Returns
    -------
    float
        Seconds spent, over all runs.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    model.to(device).train()
    tap = RouterTap(model)
    optimizer = _optimizer(model, plan)
    step, spent = _resume(model, optimizer, plan, folder)
    half = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else contextlib.nullcontext()
    began, saved = time.monotonic() - spent, time.monotonic()
    with (
        (folder / "loss.csv").open("a", newline="", encoding="utf-8") as file,
        tqdm(total=plan.steps, initial=step, unit="step", mininterval=5) as bar,
    ):
        log = csv.writer(file)
        while step < plan.steps:
            tokens = batches[step].to(device)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            tap.clear()
            with half:
                loss = token_loss(model, tokens)
                balance = tap.balance_loss()
            (loss + plan.balance * balance).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            spent = time.monotonic() - began
            even = balance.item() / model.config.num_hidden_layers
            row = (step, step * plan.rows * plan.context, loss.item(), even, plan.rate(step - 1))
            log.writerow([*row[:2], *(f"{value:.5g}" for value in row[2:]), f"{spent:.1f}"])
            bar.update()
            bar.set_postfix(loss=f"{row[2]:.3f}", balance=f"{even:.3f}", refresh=False)
            if time.monotonic() - saved > save_minutes * 60 or step == plan.steps:
                file.flush()
                _save(model, optimizer, plan, step, spent, folder)
                saved = time.monotonic()
    return spent


def _optimizer(model: MixtralForCausalLM, plan: Plan) -> torch.optim.AdamW:
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": plan.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95), fused=True)


def _save(
    model: MixtralForCausalLM,
    optimizer: torch.optim.Optimizer,
    plan: Plan,
    step: int,
    spent: float,
    folder: Path,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "plan": asdict(plan),
        "step": step,
        "seconds": spent,
    }
    making = folder / "checkpoint.pt.part"
    torch.save(state, making)
    making.replace(folder / "checkpoint.pt")


def _resume(
    model: MixtralForCausalLM, optimizer: torch.optim.Optimizer, plan: Plan, folder: Path
) -> tuple[int, float]:
    """Load the checkpoint, and cut the log back to it; (0, 0.0) when there is none."""
    log = folder / "loss.csv"
    file = folder / "checkpoint.pt"
    if not file.is_file():
        log.write_text(",".join(LOG_FIELDS) + "\n", encoding="utf-8")
        return 0, 0.0
    device = next(model.parameters()).device
    state = torch.load(file, map_location=device, weights_only=True)
    step = int(state["step"])
    _check_plan(state["plan"], plan, step)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[: step + 1]), encoding="utf-8")
    return step, float(state["seconds"])


def _check_plan(before: dict[str, Any], plan: Plan, step: int) -> None:
    """Refuse to go on with another plan; other steps will do while the rate is still level."""
    now = asdict(plan)
    changed = [key for key in now if key != "steps" and now[key] != before[key]]
    if changed:
        what = ", ".join(f"{key} {before[key]} -> {now[key]}" for key in changed)
        raise SystemExit(f"checkpoint.pt was made with another plan ({what}): use another folder")
    if now["steps"] != before["steps"]:
        level = min(int(steps * (1 - plan.decay)) for steps in (before["steps"], plan.steps))
        if step > level:
            raise SystemExit(
                f"checkpoint.pt is at step {step} and the rate falls from step {level} with "
                f"--steps {before['steps']} or {plan.steps}: it can no longer be changed"
            )
