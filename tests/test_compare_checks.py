"""Differences, limits and margins."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compare import tolerances
from compare.checks import Check, difference, drift, meaningful, tensor_differences, worst

finite = arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e3, 1e3, width=32))


@given(finite)
def test_difference_of_equal_arrays_is_zero(a):
    assert difference(a, a.copy()) == 0.0


@given(finite, st.floats(1e-3, 1.0))
def test_difference_is_relative_to_the_largest_element(a, factor):
    if np.abs(a).max() > 1e-3:
        assert difference(a * np.float32(1 + factor), a) == pytest.approx(factor, rel=1e-3)


def test_difference_with_zero_and_with_nan():
    assert difference(np.ones(2), np.zeros(2)) == math.inf
    assert math.isnan(difference(np.array([math.nan]), np.ones(1)))
    assert math.isnan(difference(np.ones(1), np.array([math.nan])))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_never_passes(value):
    check = Check("curves", "loss", value, 1.0, noise=0.0)
    assert not check.passed and check.margin == 0.0 and check.as_json()["value"] is None


def test_nan_noise_does_not_open_the_limit():
    assert not Check("curves", "loss", 2.0, 1.0, noise=math.nan).passed


def test_the_limit_is_passed_at_itself_and_failed_above():
    assert Check("a", "b", 1e-5, 1e-5).passed
    assert not Check("a", "b", 1.0001e-5, 1e-5).passed
    assert Check("a", "b", 1e-6, 1e-5).margin == pytest.approx(10)


def test_noise_raises_the_limit_and_never_lowers_it():
    assert Check("a", "b", 0, 1e-5, noise=1e-9).limit == 1e-5
    assert Check("a", "b", 0, 1e-5, noise=1e-3).limit == tolerances.NOISE * 1e-3


def test_only_the_key_part_of_the_attention_bias_is_left_out():
    bias = np.arange(12.0)
    assert meaningful("h.3.attn.c_attn.bias", bias).tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert meaningful("h.3.mlp.c_fc.bias", bias) is bias
    assert meaningful("h.3.attn.c_attn.weight", bias) is bias


def test_a_difference_in_the_key_bias_is_not_seen_and_one_beside_it_is():
    ours = {"h.0.attn.c_attn.bias": np.arange(12.0)}
    for index, seen in ((3, True), (4, False), (7, False), (8, True)):
        theirs = {"h.0.attn.c_attn.bias": ours["h.0.attn.c_attn.bias"] + np.eye(12)[index]}
        assert (worst(tensor_differences(theirs, ours)) > 0) == seen


def test_drift_is_relative_to_the_way_gone():
    start, end = {"w": np.zeros(4)}, {"w": np.full(4, 2.0)}
    assert drift({"w": np.full(4, 2.2)}, end, start)["w"] == pytest.approx(0.1)
    assert drift(end, end, end)["w"] == 0.0
    assert drift(start, end, end)["w"] == math.inf


def test_worst_keeps_nan():
    assert math.isnan(worst({"a": 1.0, "b": math.nan}))
