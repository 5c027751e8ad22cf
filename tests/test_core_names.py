"""The contract table, the initial weights, and what is counted from the table."""

import math

import numpy as np
import pytest

from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.flops import flops_per_token, mfu, tokens_per_step, training_memory
from gpt_core.init import initial_weights
from gpt_core.names import parameter_count, parameters

# Every axis has another size: vocabulary 11, context 5, width 6, inner width 24, 3 q k v 18.
SMALL = GPTConfig(vocab_size=11, block_size=5, n_layer=2, n_head=3, n_embd=6)
BLOCK = [
    ("ln_1.weight", (6,)), ("ln_1.bias", (6,)),
    ("attn.c_attn.weight", (18, 6)), ("attn.c_attn.bias", (18,)),
    ("attn.c_proj.weight", (6, 6)), ("attn.c_proj.bias", (6,)),
    ("ln_2.weight", (6,)), ("ln_2.bias", (6,)),
    ("mlp.c_fc.weight", (24, 6)), ("mlp.c_fc.bias", (24,)),
    ("mlp.c_proj.weight", (6, 24)), ("mlp.c_proj.bias", (6,)),
]  # fmt: skip


def test_table_of_a_small_model_by_hand():
    expected: list[tuple[str, tuple[int, ...]]] = [("wte.weight", (11, 6)), ("wpe.weight", (5, 6))]
    expected += [(f"h.{layer}.{name}", shape) for layer in (0, 1) for name, shape in BLOCK]
    expected += [("ln_f.weight", (6,)), ("ln_f.bias", (6,))]
    assert [(p.name, p.shape) for p in parameters(SMALL)] == expected


def test_count_of_a_small_model_by_hand():
    # embeddings 66 + 30; a block 12 + (108 + 18) + (36 + 6) + 12 + (144 + 24) + (144 + 6) = 510; final norm 12
    assert parameter_count(SMALL) == 66 + 30 + 2 * 510 + 12


def test_only_matrices_decay():
    for p in parameters(SMALL):
        assert p.decays == (len(p.shape) == 2), p.name
    assert sum(p.decays for p in parameters(SMALL)) == 2 + 2 * 4


def test_initial_weights_follow_the_table():
    weights = initial_weights(SMALL, seed=3)
    assert [(name, value.shape) for name, value in weights.items()] == [(p.name, p.shape) for p in parameters(SMALL)]
    for name, value in weights.items():
        assert value.dtype == np.float32, name
        if name.endswith(".bias"):
            assert not value.any(), name
        elif "ln_" in name:
            assert (value == 1).all(), name
        else:
            assert len(np.unique(value)) > value.size // 2, name


def test_standard_deviations_measured():
    """0.02, and 0.02 / sqrt(2 L) for the two projections into the residual stream."""
    L = 8
    weights = initial_weights(GPTConfig(vocab_size=700, block_size=400, n_layer=L, n_head=4, n_embd=256), seed=5)
    for name in ("wte.weight", "wpe.weight", "h.7.attn.c_attn.weight", "h.0.mlp.c_fc.weight"):
        check_normal(weights[name], 0.02)
    for name in ("h.0.attn.c_proj.weight", "h.7.mlp.c_proj.weight"):
        check_normal(weights[name], 0.005)  # 0.02 / sqrt(16)
    with pytest.raises(AssertionError):  # negative control: an unscaled projection would be seen
        check_normal(weights["h.0.attn.c_proj.weight"], 0.02)


def check_normal(values: np.ndarray, std: float) -> None:
    """Mean, spread and tail of n draws. The standard error of the mean is s / sqrt(n), that of s is s / sqrt(2 n)."""
    n = values.size
    assert abs(values.mean(dtype=np.float64)) < 5 * std / math.sqrt(n)
    assert abs(values.std(dtype=np.float64) - std) < 5 * std / math.sqrt(2 * n)
    inside = np.mean(np.abs(values) < std)  # 0.6827 of a normal, 0.577 of a uniform distribution of the same spread
    assert abs(inside - 0.6827) < 5 * math.sqrt(0.6827 * 0.3173 / n)


def test_weights_are_a_pure_function_of_the_seed():
    first, again, other = (initial_weights(SMALL, seed) for seed in (7, 7, 8))
    assert all((first[name] == again[name]).all() for name in first)
    assert not (first["wte.weight"] == other["wte.weight"]).any()
    assert not (first["h.0.attn.c_attn.weight"] == first["h.1.attn.c_attn.weight"]).any()


def test_known_weights():
    """Numbers noted once: a change of them would silently start every run elsewhere. Seven digits, as printed."""
    weights = initial_weights(SMALL, 1337)
    first = [0.01685004, -0.01924986, 0.01423123, 0.006969098, -0.004052848, -0.04208148]
    np.testing.assert_allclose(weights["wte.weight"][0], first, rtol=1e-6)
    np.testing.assert_allclose(weights["h.1.mlp.c_proj.weight"][-1, -2:], [0.005773161, -0.001396155], rtol=1e-6)


def test_flops_of_the_reference_model_by_hand():
    """6 N + 12 L d T without the 512 x 768 position table: 614 MFLOP a token, as DESIGN.md says."""
    model, train = presets()["seed"]
    assert flops_per_token(model) == 6 * (93_313_536 - 393_216) + 12 * 12 * 768 * 512 == 614_145_024
    assert tokens_per_step(model, train) == 2_048


def test_the_logged_061_is_the_mfu():
    """2,048 tokens in 396.05 ms on a chip of 5.2 TFLOPS: 5,171 tok/s x 614.1 MFLOP = 3.176 TFLOPS."""
    model, _ = presets()["seed"]
    assert mfu(model, 2_048 / 0.39605, 5.2) == pytest.approx(0.6107, abs=5e-5)  # four digits as computed by hand
    assert f"{mfu(model, 2_048 / 0.39605, 5.2):.2f}" == "0.61"


def test_flops_of_a_small_model_by_hand():
    # N = 1128 - 30 = 1098; 12 x 2 layers x 6 wide x 5 tokens = 720
    assert flops_per_token(SMALL) == 6 * 1098 + 720


def test_memory_grows_by_16_bytes_a_parameter_and_with_the_micro_batch_only():
    one = training_memory(SMALL, TrainConfig(micro_batch_size=1))
    assert training_memory(SMALL, TrainConfig(micro_batch_size=1, accumulation=9)) == one
    kept = training_memory(SMALL, TrainConfig(micro_batch_size=2)) - one
    assert one - kept == 16 * 1128
    assert kept == 4 * 5 * (18 * 2 * 6 + 3 * 11)  # float32, 5 tokens, 18 C a layer and three V a token
