"""The training tool: interrupted is the same as not, no held-out text, every layer balanced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("transformers", reason="training needs transformers")

import torch

from tiny_mixtral import corpus, network, training, vocabulary

PLAN = training.Plan(
    steps=8, rows=2, context=8, learning_rate=1e-2, warmup=2, decay=0.5, balance=0.01,
    weight_decay=0.1, seed=3,
)  # fmt: skip


@pytest.fixture(autouse=True)
def restore_determinism() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def small_model() -> torch.nn.Module:
    config = network.make_config(
        vocab=64, layers=2, hidden=32, width=16, experts=4, top_k=2, pad=0, bos=1, eos=2
    )
    return network.make_model(config, seed=1)


def small_batches(plan: training.Plan) -> training.Batches:
    draw = np.random.default_rng(0)
    tokens = [draw.integers(0, 64, 500, np.uint16) for _ in range(2)]
    return training.Batches(tokens, [1.0, 3.0], plan)


class Interrupted(training.Batches):
    """Batches that fail at a step, as a killed machine does."""

    def __init__(self, whole: training.Batches, at: int) -> None:
        self._whole, self._at = whole, at

    def __getitem__(self, step: int) -> torch.Tensor:
        if step == self._at:
            raise KeyboardInterrupt
        return self._whole[step]


def log_without_times(folder: Path) -> list[list[str]]:
    lines = (folder / "loss.csv").read_text().splitlines()
    return [line.split(",")[:-1] for line in lines]


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    expected = small_model()
    training.train(expected, small_batches(PLAN), PLAN, straight, device="cpu", save_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        training.train(
            small_model(), Interrupted(small_batches(PLAN), at=5), PLAN, broken, device="cpu",
            save_minutes=0,
        )  # fmt: skip
    got = small_model()
    training.train(got, small_batches(PLAN), PLAN, broken, device="cpu", save_minutes=0)
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, got.state_dict()[name]), name
    assert log_without_times(broken) == log_without_times(straight)
    assert len(log_without_times(broken)) == 1 + PLAN.steps
    assert not torch.equal(expected.lm_head.weight, small_model().lm_head.weight)


def test_another_plan_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    training.train(small_model(), small_batches(PLAN), PLAN, tmp_path, device="cpu")
    other = replace(PLAN, learning_rate=2e-2)
    with pytest.raises(SystemExit, match="learning_rate 0.01 -> 0.02"):
        training.train(small_model(), small_batches(other), other, tmp_path, device="cpu")
    longer = replace(PLAN, steps=20)
    with pytest.raises(SystemExit, match="step 8 and the rate falls from step 4"):
        training.train(small_model(), small_batches(longer), longer, tmp_path, device="cpu")


def test_fewer_steps_are_the_same_run_while_the_rate_is_level() -> None:
    long, short = replace(PLAN, steps=40), replace(PLAN, steps=12)
    assert [long.rate(s) for s in range(6)] == [short.rate(s) for s in range(6)]
    assert short.rate(11) < short.rate(6) == short.learning_rate


def test_documents_that_overlap_held_out_text_are_left_out() -> None:
    held_out = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    copied = "before " + held_out.upper().replace(" ", ", ") + " after"
    near = " ".join(held_out.split()[:12]) + " something else"
    source = corpus.Source("text", [copied, near])
    corpus.drop_overlap([source], [held_out])
    assert source.documents == [near]
    assert source.dropped_overlap == 1


def test_generated_and_repeated_files_are_not_picked(tmp_path: Path) -> None:
    body = "x = 1\n" * 100
    (tmp_path / "a.py").write_text(body)
    (tmp_path / "copy.py").write_text(body)
    (tmp_path / "data.py").write_text(body + "y = '" + "z" * 500 + "'\n")
    (tmp_path / "short.py").write_text("x = 1\n")
    picked = corpus._pick(tmp_path.glob("*.py"), 10**6, seed=0, max_line=400)
    assert picked == [body]


def test_calculator_marks_are_taken_out_of_answers() -> None:
    assert corpus.answer({"answer": "48/2 = <<48/2=24>>24 clips"}) == "48/2 = 24 clips"


def test_the_balance_loss_is_one_per_layer_when_even() -> None:
    model = small_model()
    tap = network.RouterTap(model)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.zero_()
    tokens = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(0))
    network.token_loss(model, tokens)
    # Probabilities are even, so whatever was chosen the sum over e of f_e * P_e is 1/E.
    assert tap.balance_loss().item() == pytest.approx(2.0)
    assert tap.counts().sum(dim=1).tolist() == [128, 128]
    tap.clear()
    network.token_loss(model, tokens)
    assert tap.counts().shape == (2, 4)


def test_one_collapsed_layer_is_not_hidden_by_another_that_prefers_other_experts() -> None:
    tap = network.RouterTap(small_model())
    for favourite in (0, 2):
        logits = torch.zeros(10, 4)
        logits[:, favourite] = 100.0
        chosen = torch.tensor([[favourite, favourite + 1]]).expand(10, 2)
        tap._keep(None, None, (logits, None, chosen))
    # Pooled, every expert has a quarter of the assignments; by layer, f_e * P_e is 1/2 * 1.
    assert tap.balance_loss().item() == pytest.approx(2 * 4 * 0.5)


def test_the_tokenizer_splits_digits_and_gives_text_back() -> None:
    source = corpus.Source("text", ["def area(width, height): return width * height\n" * 30] * 4)
    tokenizer = vocabulary.train_tokenizer([source], 300, seed=0)
    encoding = tokenizer.encode("width 1234")
    assert {"1", "2", "3", "4"} <= set(encoding.tokens)
    assert tokenizer.decode(encoding.ids) == "width 1234"
