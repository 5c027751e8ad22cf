"""Muon, dropout, token noise and the loss at the head: by hand, in both twins alike, and resumed."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import QWEN, TWINS, batch, fresh, learnable_batches, mlx_twin, mx, relative, scaled_up

import mlx_gpt.loss
import mlx_gpt.muon
import mlx_gpt.state
import torch_gpt.loss
import torch_gpt.muon
import torch_gpt.state
from gpt_core.config import TrainConfig
from gpt_core.names import moment_shapes, parameters
from gpt_core.noise import drawn_at, places

MUON = TrainConfig(micro_batch_size=3, accumulation=2, optimizer="muon", lr=3e-3, weight_decay=0.1)
MODULES: dict[str, tuple[Any, Any]] = {"mlx": (mlx_gpt.muon, mx.array), "torch": (torch_gpt.muon, torch.from_numpy)}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("shape", [(5, 17), (17, 5), (8, 8)])
def test_singular_values_come_near_one_and_vectors_stay(name: str, shape: tuple[int, int]) -> None:
    module, convert = MODULES[name]
    matrix = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    found = np.asarray(module.orthogonalized(convert(matrix)))
    assert found.shape == shape
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ found @ v.T  # diagonal if the singular vectors are the matrix's own
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 1e-4


@pytest.mark.parametrize("name", MODULES)
def test_one_value_by_hand(name: str) -> None:
    """A 1 x 1 matrix is its own singular value: 1 goes through the polynomial five times, whatever the gradient's size."""
    module, convert = MODULES[name]
    s = 1.0
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    for gradient in (3.0, -0.25):
        found = np.asarray(module.orthogonalized(convert(np.array([[gradient]], np.float32))))
        assert found[0, 0] == pytest.approx(np.sign(gradient) * s, rel=1e-5)


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_both_twins_orthogonalize_alike(rows: int, columns: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)
    found = [np.asarray(module.orthogonalized(convert(matrix))) for module, convert in MODULES.values()]
    assert np.abs(found[0] - found[1]).max() < 2e-5  # measured 1.4e-6, 300 matrices; with a = 3.44, 1.5e-3 to 1e-2


@pytest.mark.parametrize("name", TWINS)
def test_an_update_by_definition(name: str) -> None:
    """Two steps of one matrix in numpy float64: momentum, Nesterov, decay, and the factor of a tall matrix, sqrt(3)."""
    train = dataclasses.replace(MUON, grad_clip=1e9, accumulation=1)
    start, lr = scaled_up(fresh(QWEN)), 1.5e-3  # half of the peak, so that Muon's rate is 0.01
    twin, key = TWINS[name](start, QWEN, train), "h.1.attn.c_attn.weight"
    expected, momentum = start[key].astype(np.float64), np.zeros(start[key].shape)
    for seed in range(2):
        tokens = batch(QWEN, (1, 3, QWEN.block_size + 1), seed)
        gradient = TWINS[name](twin.weights(), QWEN, train).gradients(tokens[0])[1][key].astype(np.float64)
        momentum = 0.95 * momentum + gradient
        update = gradient + 0.95 * momentum
        x = update / np.linalg.norm(update)
        for _ in range(5):
            a = x.T @ x
            x = 3.4445 * x + x @ (-4.7750 * a + 2.0315 * a @ a)
        expected = expected * (1 - 0.01 * 0.1) - 0.01 * np.sqrt(3) * x
        twin.train_step(tokens, lr)
    found, moved = twin.weights()[key], np.abs(expected - start[key]).max()
    assert (
        np.abs(found - expected).max() < 6e-5 * moved
    )  # measured 6.2e-6; no decay 0.08, no Nesterov 0.2, no sqrt(3) 0.7, a = 3.44 0.02


def test_embeddings_and_norms_are_left_to_adamw() -> None:
    shapes = moment_shapes(QWEN, MUON)
    assert set(shapes) == {
        f"{p.name}.{moment}"
        for p in parameters(QWEN)
        for moment in "mv"
        if moment == "m" or len(p.shape) < 2 or p.name == "wte.weight"
    }
    for name, twin in TWINS.items():
        made = twin(fresh(QWEN), QWEN, MUON)
        made.train_step(batch(QWEN, (2, 3, QWEN.block_size + 1)), 1e-3)
        assert {key: value.shape for key, value in moments_of(name, made).items()} == shapes


def moments_of(name: str, twin: Any) -> dict[str, np.ndarray]:
    """A twin's moments, copied."""
    if name == "mlx":
        return mlx_gpt.state.read_moments(twin.optimizer)
    return {key: value.copy() for key, value in torch_gpt.state.read_moments(twin.model, twin.optimizer).items()}


Step = tuple[np.ndarray, float, dict[str, np.ndarray]]
NOISY = dataclasses.replace(MUON, dropout=0.2, token_noise=0.1)


def steps_to_learn(count: int, first_draw: int = 0) -> list[Step]:
    """Arguments of training steps with Muon, dropout and token noise, on something that can be learned."""
    batches = learnable_batches(QWEN, NOISY, count)
    return [
        (tokens, NOISY.lr * (1 - step / count), drawn_at(first_draw + step, tokens, QWEN, NOISY))
        for step, tokens in enumerate(batches)
    ]


def curve(twin: Any, steps: list[Step]) -> np.ndarray:
    """Loss of each step."""
    return np.array([twin.train_step(*step)[0] for step in steps])


def test_sixty_steps_agree_and_learn() -> None:
    steps = steps_to_learn(60)
    found = [curve(twin(fresh(QWEN), QWEN, NOISY), steps) for twin in TWINS.values()]
    assert found[0][0] - found[0][-1] > 0.5
    assert np.abs(found[0] - found[1]).max() < 5e-5  # measured 5.2e-6, with dropout alone 5.5e-6 over three seeds
    other = curve(mlx_twin(fresh(QWEN), QWEN, NOISY), steps_to_learn(60, first_draw=1))
    assert np.abs(found[0] - other).max() > 1e-2


@pytest.mark.parametrize(("first", "second"), [("mlx", "torch"), ("torch", "mlx"), ("mlx", "mlx"), ("torch", "torch")])
def test_either_goes_on_from_the_other(first: str, second: str) -> None:
    steps = steps_to_learn(20)
    whole = curve(TWINS[second](fresh(QWEN), QWEN, NOISY), steps)[10:]
    begun = TWINS[first](fresh(QWEN), QWEN, NOISY)
    curve(begun, steps[:10])
    after = TWINS[second](begun.weights(), QWEN, NOISY)
    moments = moments_of(first, begun)
    if second == "mlx":
        mlx_gpt.state.load_moments(after.optimizer, moments, 10)
    else:
        torch_gpt.state.load_moments(after.model, after.optimizer, moments, 10)
    found = curve(after, steps[10:])
    if first == second:
        np.testing.assert_array_equal(found, whole)
    assert np.abs(found - whole).max() < 5e-5  # measured 4.3e-6
    forgotten = curve(TWINS[second](begun.weights(), QWEN, NOISY), steps[10:])
    assert np.abs(forgotten - whole).max() > 1e-2


@pytest.mark.parametrize("name", TWINS)
def test_what_is_dropped_changes_nothing(name: str) -> None:
    """All of a layer's output dropped: as if its last matrices were zero."""
    train = dataclasses.replace(MUON, dropout=0.5, accumulation=1)
    tokens, start = batch(QWEN, (1, 3, QWEN.block_size + 1)), scaled_up(fresh(QWEN))
    kept = np.ones((1, 3, places(QWEN), QWEN.block_size, QWEN.n_embd), dtype=bool)
    kept[:, :, 3:5] = False  # the second layer
    silent = start | {n: np.zeros_like(w) for n, w in start.items() if n.startswith("h.1.") and "c_proj" in n}
    found = TWINS[name](start, QWEN, train).train_step(tokens, 0.0, {"kept": kept})[0]
    expected = TWINS[name](silent, QWEN, train).train_step(tokens, 0.0, {"kept": np.ones_like(kept)})[0]
    assert found == pytest.approx(expected, rel=1e-6)
    assert found != pytest.approx(TWINS[name](start, QWEN, train).train_step(tokens, 0.0)[0], rel=1e-3)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", TWINS)
def test_noise_changes_what_is_read_and_not_what_is_asked(name: str, mask: bool) -> None:
    """The loss by the model's own logits of the tokens read, a row at a time, at the targets of the batch."""
    train = dataclasses.replace(MUON, accumulation=1, document_mask=mask, token_noise=0.4)
    tokens, start = batch(QWEN, (1, 3, QWEN.block_size + 1)), scaled_up(fresh(QWEN))
    tokens[tokens == 0] = 1
    tokens[..., 5] = 0  # <|endoftext|>: a row begins
    drawn = drawn_at(0, tokens, QWEN, train)
    found = TWINS[name](start, QWEN, train).train_step(tokens, 0.0, drawn)[0]
    rows = np.split(drawn["idx"][0], [5] if mask else [], axis=1)
    logits = np.concatenate([TWINS[name](start, QWEN).logits(row) for row in rows], axis=1).astype(np.float64)

    def loss_at(targets: np.ndarray) -> float:
        return float((np.log(np.exp(logits).sum(2)) - np.take_along_axis(logits, targets[..., None], axis=2)[..., 0]).mean())

    assert found == pytest.approx(loss_at(tokens[0, :, 1:]), rel=1e-6)
    assert found != pytest.approx(loss_at(np.append(drawn["idx"][0, :, 1:], tokens[0, :, -1:], axis=1)), rel=1e-3)
    assert found != pytest.approx(TWINS[name](start, QWEN, train).train_step(tokens, 0.0)[0], rel=1e-4)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("rows", [4, 256])
def test_the_loss_at_the_head_is_the_mean_of_nats(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients too: against float64 and automatic differentiation; in blocks that do and do not divide N = 11."""
    monkeypatch.setattr({"mlx": mlx_gpt.loss, "torch": torch_gpt.loss}[name], "ROWS", rows)
    draw = np.random.default_rng(0)
    x, weight = draw.standard_normal((11, 7), dtype=np.float32) * 3, draw.standard_normal((23, 7), dtype=np.float32)
    targets, factors = draw.integers(0, 23, 11), draw.uniform(0, 1, 11).astype(np.float32)
    leaves = [torch.from_numpy(v).double().requires_grad_() for v in (x, weight)]
    nats = torch.nn.functional.cross_entropy(leaves[0] @ leaves[1].T, torch.from_numpy(targets), reduction="none")
    loss = 3 * (nats * torch.from_numpy(factors)).sum()
    loss.backward()
    found: list[Any]
    if name == "torch":
        a, b = (torch.from_numpy(v).requires_grad_() for v in (x, weight))
        value = 3 * torch_gpt.loss.head_loss(a, b, torch.from_numpy(targets), torch.from_numpy(factors))
        value.backward()
        found = [value.item(), *(leaf.grad.numpy() for leaf in (a, b) if leaf.grad is not None)]
    else:
        scored = mx.array(targets.astype(np.int32)), mx.array(factors)
        function = mx.value_and_grad(lambda a, b: 3 * mlx_gpt.loss.head_loss(a, b, *scored), argnums=(0, 1))
        total, gradients = function(mx.array(x), mx.array(weight))
        found = [total.item(), *(np.array(gradient) for gradient in gradients)]
    assert found[0] == pytest.approx(loss.item(), rel=2e-6)
    for gradient, leaf in zip(found[1:], leaves, strict=True):
        assert leaf.grad is not None and relative(gradient, leaf.grad.numpy()) < 2e-6
