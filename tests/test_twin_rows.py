"""--document-mask: packed rows are, in both twins, what each row is alone."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import mlx.nn
import numpy as np
import pytest
import torch
from helpers import stream_of
from twins import CONFIG, CPU, TWINS, fresh, losses, mlx_twin, mx, relative, scaled_up, torch_twin

import mlx_gpt.model
import mlx_gpt.state
import mlx_gpt.step
import torch_gpt.model
import torch_gpt.step
from gpt_core.checkpoint import Arrays
from gpt_core.config import DType, GPTConfig, TrainConfig, presets
from gpt_core.loader import Loader
from gpt_core.packing import PackedRows, layout, split_batch
from gpt_core.schedule import lr_at

# Largest difference over the largest value, weights x 5: nats of packed rows against those rows alone, and gradients
# likewise, 1.5e-7 and 6.9e-7; one twin against the other, two seeds, 2.0e-7 and 1.5e-6.
TOLERANCE = 5e-6
T = CONFIG.block_size
MASKED = TrainConfig(micro_batch_size=7, accumulation=1, document_mask=True)


def packed_rows(seed: int = 0) -> np.ndarray:
    """Seven sequences of rows of 1 to 60 tokens, (7, T+1): whole ones, pieces of long ones, and padding."""
    draw = np.random.default_rng(seed)
    rows = [[0, *draw.integers(1, CONFIG.vocab_size, n).tolist()] for n in (60, 3, 9, 23, 5, 1, 14, 7, 30, 2)]
    packed = PackedRows(stream_of(*rows), T, seed)
    assert packed.count == 7 and packed.padding > 0
    return np.stack([packed.read(0, line) for line in range(7)])


def stretches(sequences: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Line and inputs of each row, or piece of one, that a packed batch holds; padding is none."""
    positions, counted = layout(sequences)
    for line, (row, counts) in enumerate(zip(positions, counted, strict=True)):
        cuts = [*np.flatnonzero(row == 0).tolist(), T]
        for start, end in pairwise(cuts):
            if counts[start]:
                yield line, slice(start, end)


def nats_and_gradients(name: str, weights: Arrays, tokens: np.ndarray, masked: bool) -> tuple[np.ndarray, Arrays]:
    """Nats (B, T) of a twin, and the gradient of their sum."""
    parts, _ = split_batch(tokens, masked)
    arrays = [parts[name] for name in ("idx", "targets", "positions", "counted") if name in parts][: 4 if masked else 2]
    if name == "torch":
        model = torch_twin(weights).model
        nats = torch_gpt.step.nats(model, *(torch.from_numpy(part).long() for part in arrays))
        nats.sum().backward()
        found = {key: parameter.grad.numpy() for key, parameter in model.named_parameters()}
        return nats.detach().numpy(), found
    model = mlx_twin(weights).model
    inputs = [mx.array(part) for part in arrays]
    _, gradients = mlx.nn.value_and_grad(model, lambda *parts: mlx_gpt.step.nats(model, *parts).sum())(*inputs)
    found = {key: np.array(value) for key, value in mlx_gpt.state.flat(gradients).items()}
    return np.array(mlx_gpt.step.nats(model, *inputs)), found


def worst(found: Arrays, expected: Arrays) -> float:
    """Largest relative difference of any tensor."""
    return max(relative(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple[np.ndarray, Arrays]]:
    """Nats of each row of the packed batch scored by itself, laid out as in the batch, and the sum of their gradients."""
    weights, sequences, results = scaled_up(fresh()), packed_rows(), {}
    for name in TWINS:
        nats, total = np.zeros((7, T), dtype=np.float32), {key: np.zeros_like(value) for key, value in weights.items()}
        for line, where in stretches(sequences):
            tokens = sequences[line : line + 1, where.start : where.stop + 1]
            found, gradients = nats_and_gradients(name, weights, tokens, masked=False)
            nats[line, where] = found[0]
            total = {key: value + gradients[key] for key, value in total.items()}
        results[name] = nats, total
    return results


@pytest.mark.parametrize("name", TWINS)
def test_packed_rows_are_scored_as_each_row_alone(name: str, alone: dict[str, tuple[np.ndarray, Arrays]]) -> None:
    nats, gradients = nats_and_gradients(name, scaled_up(fresh()), packed_rows(), masked=True)
    assert (nats[alone[name][0] == 0] == 0).all() and (alone[name][0] == 0).sum() == (~layout(packed_rows())[1]).sum()
    assert relative(nats, alone[name][0]) < TOLERANCE
    assert worst(gradients, alone[name][1]) < TOLERANCE


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("mistake", ["no mask", "positions run on", "padding counts"])
def test_that_check_sees_mistakes(
    name: str, mistake: str, alone: dict[str, tuple[np.ndarray, Arrays]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = {"mlx": mlx_gpt.model, "torch": torch_gpt.model}[name]
    weights, sequences = scaled_up(fresh()), packed_rows()
    if mistake == "no mask":
        monkeypatch.setattr(module, "row_mask", lambda positions: None)
    elif mistake == "positions run on":
        mask = module.row_mask
        arrange: Any = {"mlx": mx.arange, "torch": torch.arange}[name]
        call = module.GPT.forward if name == "torch" else module.GPT.__call__

        def running(self: Any, idx: Any, cache: Any = None, positions_BT: Any = None) -> Any:
            monkeypatch.setattr(module, "row_mask", lambda _: mask(positions_BT))
            return call(self, idx, cache, arrange(T)[None])  # positions from 0 to T - 1, the mask as it should be

        monkeypatch.setattr(module.GPT, "forward" if name == "torch" else "__call__", running)
    else:
        step: Any = {"mlx": mlx_gpt.step, "torch": torch_gpt.step}[name]
        nats_of = step.nats
        monkeypatch.setattr(step, "nats", lambda model, x, y, positions=None, counted=None: nats_of(model, x, y, positions))
    nats, gradients = nats_and_gradients(name, weights, sequences, masked=True)
    assert relative(nats, alone[name][0]) > 100 * TOLERANCE
    assert worst(gradients, alone[name][1]) > 100 * TOLERANCE


@pytest.mark.parametrize("seed", range(2))
def test_twins_agree_on_packed_rows(seed: int) -> None:
    weights, sequences = scaled_up(fresh(seed=seed)), packed_rows(seed)
    (nats, gradients), (others, other_gradients) = (nats_and_gradients(name, weights, sequences, True) for name in TWINS)
    assert relative(nats, others) < TOLERANCE
    assert worst(gradients, other_gradients) < TOLERANCE


@pytest.mark.parametrize("name", TWINS)
def test_fused_attention_with_a_row_mask_is_the_reference(name: str) -> None:
    module: Any = {"mlx": mlx_gpt.model, "torch": torch_gpt.model}[name]
    convert: Any = {"mlx": mx.array, "torch": torch.from_numpy}[name]
    positions, _ = layout(packed_rows())
    q, k, v = (np.random.default_rng(i).standard_normal((7, 3, T, 5), dtype=np.float32) for i in range(3))
    inputs = [convert(part) for part in (q, k, v)]
    seen = module.row_mask(convert(positions))
    fused, reference, causal = (
        np.asarray(f(*inputs, *mask))
        for f, mask in ((module.attention, [seen]), (module.reference_attention, [seen]), (module.attention, []))
    )
    assert relative(fused, reference) < 2e-6
    assert relative(causal, reference) > 0.1
    by_hand = np.array([[[s <= t and t - s <= p for s in range(T)] for t, p in enumerate(line)] for line in positions])
    np.testing.assert_array_equal(np.asarray(seen), by_hand)


@pytest.mark.parametrize("name", TWINS)
def test_no_logit_sees_a_later_token_or_another_row(name: str) -> None:
    """Bitwise: what changes in one row moves nothing before it, and nothing in any other row."""
    weights, sequences = scaled_up(fresh()), packed_rows()
    rows = [(line, where) for line, where in stretches(sequences) if where.stop - where.start > 4]
    before, _ = nats_and_gradients(name, weights, sequences, masked=True)
    for line, where in rows:
        changed = sequences.copy()
        place = where.start + 3  # not its first token: a row would begin elsewhere
        changed[line, place] = changed[line, place] % (CONFIG.vocab_size - 1) + 1
        after, _ = nats_and_gradients(name, weights, changed, masked=True)
        moved = np.zeros((7, T), dtype=bool)
        moved[line, place - 1 : where.stop] = True  # its own nats, and those of what follows it in its row
        np.testing.assert_array_equal(after[~moved], before[~moved])
        assert (np.abs(after - before)[moved] > 1e-4).mean() > 0.8


@pytest.mark.parametrize("name", TWINS)
def test_the_loss_of_a_step_is_nats_over_counted_targets(name: str) -> None:
    """Over both micro-batches together, although one has more padding than the other."""
    sequences = packed_rows()[np.array([0, 1, 2, 3, 4, 6])].reshape(2, 3, T + 1)
    train = dataclasses.replace(MASKED, micro_batch_size=3, accumulation=2)
    loss, norm = TWINS[name](scaled_up(fresh()), CONFIG, train).train_step(sequences, 1e-3)
    nats, gradients = nats_and_gradients(name, scaled_up(fresh()), sequences.reshape(6, T + 1), masked=True)
    counted = layout(sequences)[1].sum(axis=(1, 2))
    assert counted[0] != counted[1] and counted.sum() < 6 * T
    assert loss == pytest.approx(nats.sum() / counted.sum(), rel=1e-6)
    assert norm == pytest.approx(np.sqrt(sum((g**2).sum() for g in gradients.values())) / counted.sum(), rel=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_twins_agree_in_half_precision_on_packed_rows(dtype: DType) -> None:
    """Against float32, relative: losses 9e-5 (bfloat16) and 1.4e-5 (float16), norms 9e-4 and 1.8e-4; twins apart 6e-4."""
    train = dataclasses.replace(MASKED, dtype=dtype)
    exact = torch_twin(scaled_up(fresh()), CONFIG, MASKED).train_step(packed_rows()[None], 1e-3)
    found = [TWINS[name](scaled_up(fresh()), CONFIG, train).train_step(packed_rows()[None], 1e-3) for name in TWINS]
    for loss, norm in found:
        assert 1e-7 < abs(loss / exact[0] - 1) < 5e-4 and norm == pytest.approx(exact[1], rel=4e-3)
    assert found[0] == pytest.approx(found[1], rel=2e-3)


def learnable_rows(config: GPTConfig, count: int) -> list[list[int]]:
    """Rows of 1 to 100 tokens in which each token makes five others likely: something to learn."""
    draw = np.random.default_rng(0)
    successors = draw.zipf(1.3, size=(config.vocab_size, 5)) % (config.vocab_size - 1) + 1
    rows = []
    for length in np.minimum(draw.geometric(1 / 12, count), 100):
        row = [int(draw.integers(1, config.vocab_size))]
        while len(row) < length:
            row.append(int(successors[row[-1], draw.integers(0, 5)]))
        rows.append([0, *row])
    return rows


def test_sixty_steps_of_tiny_agree_on_packed_rows() -> None:
    """As in test_twin_curves.py, at half the learning rate: measured 2.1e-5. At 1e-3 these rows have a batch (step 43) that
    magnifies any difference by 13, torch's from torch as well as the twins', to 4.4e-4."""
    config, train = presets()["tiny"]
    train = dataclasses.replace(train, steps=60, lr=5e-4, document_mask=True)
    loader = Loader(stream_of(*learnable_rows(config, 2600)), config, train)
    batches, lrs = [loader.batch_at(step) for step in range(60)], [lr_at(step, train, 60) for step in range(60)]
    curves = [losses(TWINS[name](fresh(config), config, train), batches, lrs) for name in TWINS]
    assert curves[0][0] - curves[0][-1] > 3
    assert np.abs(curves[0] - curves[1]).max() < 1e-4


def test_other_rows_need_no_other_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled MLX step is traced once, whatever rows a batch holds, and is the eager one."""
    small, traced, results = dataclasses.replace(CONFIG, n_layer=1), [], []
    mask = mlx_gpt.model.row_mask
    monkeypatch.setattr(mlx_gpt.model, "row_mask", lambda positions: traced.append(1) or mask(positions))  # type: ignore[func-returns-value]
    for switch, traces in ((mx.enable_compile, 1), (mx.disable_compile, 3)):
        switch()
        traced.clear()
        step = mlx_twin(scaled_up(fresh(small)), small, MASKED).train_step
        results.append([step(packed_rows(seed)[None], 1e-3) for seed in range(3)])
        assert len(traced) == traces
    np.testing.assert_allclose(results[0], results[1], rtol=2e-6)


@pytest.mark.cuda
def test_packed_rows_on_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    step = torch_twin(scaled_up(fresh()), CONFIG, MASKED, torch.device("cuda")).train_step
    expected = torch_twin(scaled_up(fresh()), CONFIG, MASKED, CPU).train_step
    assert step(packed_rows()[None], 1e-3)[0] == pytest.approx(expected(packed_rows()[None], 1e-3)[0], rel=1e-4)
