"""The learning rate, step by step."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.config import TrainConfig
from gpt_core.schedule import lr_at

EXACT = 1e-12  # relative: a handful of float64 roundings of 1.1e-16 each


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # warm-up of 3 to a peak of 0.8: quarters; then 8 steps from 0.8 to 0.1, which would be reached at step 11
        ("constant", {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 0.8, 7: 0.8, 10: 0.8}),
        ("linear", {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 0.7125, 5: 0.625, 7: 0.45, 9: 0.275, 10: 0.1875}),
        # 0.1 + 0.7 (1 + cos(pi i / 8)) / 2, with cos(pi/8) = 0.923879532511287, cos(pi/4) = 0.707106781186548
        ("cosine", {0: 0.2, 2: 0.6, 3: 0.8, 4: 0.1 + 0.35 * 1.923879532511287, 5: 0.1 + 0.35 * 1.707106781186548,
                    7: 0.45, 9: 0.1 + 0.35 * 0.292893218813452, 10: 0.1 + 0.35 * 0.076120467488713}),
    ],
)  # fmt: skip
def test_values_by_hand(schedule, expected):
    config = TrainConfig(schedule=schedule, lr=0.8, min_lr=0.0 if schedule == "constant" else 0.1, warmup_steps=3, steps=11)
    assert {step: lr_at(step, config, 11) for step in expected} == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize(("schedule", "expected"), [("linear", [1.0, 0.75, 0.5, 0.25]), ("constant", [1.0] * 4)])
def test_without_warm_up_the_first_step_is_the_peak(schedule, expected):
    config = TrainConfig(schedule=schedule, lr=1.0, steps=4)
    assert [lr_at(step, config, 4) for step in range(4)] == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_shorter_than_its_warm_up_only_rises(schedule):
    config = TrainConfig(schedule=schedule, lr=1.0, warmup_steps=9, steps=4)
    assert [lr_at(step, config, 4) for step in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4], rel=EXACT)


@given(
    st.sampled_from(["linear", "cosine"]),
    st.floats(1e-6, 10.0),
    st.floats(0.0, 1.0),
    st.integers(0, 20),
    st.integers(1, 50),
)
def test_never_above_the_peak_nor_below_the_end(schedule, lr, fraction, warmup, decay):
    """Rises to the peak at step `warmup`, falls from there, stays above `min_lr`; the slack is two float64 roundings."""
    total = warmup + decay
    config = TrainConfig(schedule=schedule, lr=lr, min_lr=fraction * lr, warmup_steps=warmup, steps=total)
    rates = [lr_at(step, config, total) for step in range(total)]
    slack = 4.5e-16 * lr
    assert max(rates) <= lr + slack and rates[warmup] == pytest.approx(lr, rel=EXACT)
    assert rates[0] > 0 and min(rates[warmup:]) >= config.min_lr - slack
    assert all(a < b for a, b in pairwise(rates[: warmup + 1]))
    assert all(a >= b - slack for a, b in pairwise(rates[warmup:]))


@given(st.floats(1e-6, 1.0), st.integers(0, 30), st.integers(0, 10_000))
def test_a_constant_rate_does_not_look_at_the_horizon(lr, warmup, step):
    config = TrainConfig(lr=lr, warmup_steps=warmup)
    assert lr_at(step, config, 40) == lr_at(step, config, 999_999)
