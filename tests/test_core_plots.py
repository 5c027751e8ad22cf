"""The two plots: their curves, and their files."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from gpt_core.curves import LIMIT, Curves, Series, running_mean
from gpt_core.plots import draw, grad_norm_figure, loss_figure

RECORDS = [
    {"step": 3, "loss": 9.0, "grad_norm": 7.0, "clipped_grad_norm": 1.0},
    {"step": 4, "loss": 8.0, "grad_norm": 0.5, "clipped_grad_norm": 0.5, "val_loss": 8.5},
    {"step": 6, "loss": 6.0, "grad_norm": 2.0, "clipped_grad_norm": 0.75},
]


def curves(figure: Figure) -> dict[str, list[tuple[Any, ...]]]:
    """Label -> points, of the only axes."""
    (axes,) = figure.axes
    return {str(line.get_label()): [tuple(point) for point in np.array(line.get_xydata()).tolist()] for line in axes.lines}


def test_running_mean_by_hand():
    """Weight 0.5: 4; (2 + 2) / 0.75 -> (0.5 x 2 + 0.5 x 1) / 0.75 = 2; (0.75 + 3) / 0.875."""
    assert running_mean([4, 1, 6], 0.5) == pytest.approx([4.0, 1.5 / 0.75, 3.75 / 0.875], rel=1e-12)
    assert running_mean([]) == []


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.floats(0.01, 0.9))
def test_running_mean_is_a_weighted_mean_of_all_values_so_far(values, weight):
    for count, mean in enumerate(running_mean(values, weight), start=1):
        weights = (1 - weight) ** np.arange(count)[::-1]
        assert mean == pytest.approx(np.dot(weights, values[:count]) / weights.sum(), rel=1e-9, abs=1e-9)  # float64 sums


def test_loss_curves():
    found = curves(loss_figure(Curves(RECORDS)))
    assert found["train, each step"] == [(3, 9.0), (4, 8.0), (6, 6.0)]
    assert found["validation"] == [(4, 8.5)]
    # weight 0.05: 9; (0.05 x 8 + 0.0475 x 9) / 0.0975; (0.05 x 6 + 0.0475 x 8 + 0.045125 x 9) / 0.142625
    assert [y for _, y in found["train, running mean"]] == pytest.approx([9, 0.8275 / 0.0975, 1.086125 / 0.142625], rel=1e-12)
    assert len(found) == 3


def test_grad_norm_curves_before_and_after_clipping():
    figure = grad_norm_figure(Curves(RECORDS))
    assert curves(figure) == {
        "before clipping": [(3, 7.0), (4, 0.5), (6, 2.0)],
        "after clipping": [(3, 1.0), (4, 0.5), (6, 0.75)],
    }
    assert figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("figure", [loss_figure, grad_norm_figure])
def test_axes_and_curves_are_labelled(figure):
    (axes,) = figure(Curves(RECORDS)).axes
    assert axes.get_xlabel() == "optimizer step" and axes.get_ylabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves(figure(Curves(RECORDS))))


def test_files_are_pngs_of_their_size(tmp_path):
    """8 x 4.5 inches at 120 dots; drawn twice, the second time over the first; more curves are more bytes."""
    draw(Curves(RECORDS[:1]), tmp_path / "plots")
    before = (tmp_path / "plots" / "loss.png").read_bytes()
    draw(Curves(RECORDS), tmp_path / "plots")
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["grad_norm.png", "loss.png"]
    for path in (tmp_path / "plots").iterdir():
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
        assert struct.unpack(">4sII", data[12:24]) == (b"IHDR", 960, 540)
    assert (tmp_path / "plots" / "loss.png").read_bytes() != before


def test_no_records_are_no_error(tmp_path):
    draw(Curves(), tmp_path / "plots")


def test_gradients_of_zero_are_no_warning(tmp_path):
    draw(Curves([RECORDS[0] | {"grad_norm": 0.0, "clipped_grad_norm": 0.0}]), tmp_path / "plots")


@given(st.lists(st.floats(0.1, 100), max_size=300), st.sampled_from([2, 4, 10]))
def test_a_full_series_keeps_the_first_or_the_largest_of_equal_groups(values, limit):
    """Against the plain definition; the groups are of `stride` steps, the last one may be short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt_core.curves.LIMIT", limit)
        plain, peaks = Series(), Series(peaks=True)
        for step, value in enumerate(values):
            plain.add(step, value)
            peaks.add(step, value)
    assert plain.stride == peaks.stride and len(plain.points) <= limit
    groups = [list(enumerate(values))[i : i + plain.stride] for i in range(0, len(values), plain.stride)]
    assert plain.points == [group[0] for group in groups]
    assert peaks.points == [max(group, key=lambda point: point[1]) for group in groups]
    assert plain.stride == 1 or len(plain.points) > limit // 2


def test_a_long_run_is_drawn_from_few_points():
    """The one spike among 20,000 steps stays; the mean is that of all steps, as in a short run."""
    records = [
        {"step": step, "loss": 5.0, "grad_norm": 99.0 if step == 7777 else 1.0, "clipped_grad_norm": 1.0}
        for step in range(1, 5 * LIMIT + 1)
    ]
    found = Curves(records)
    assert found.loss.stride == 8 and len(found.loss.points) == 5 * LIMIT // 8
    assert max(point[1] for point in found.norm.points) == 99.0
    assert found.loss.points[-1][2] == pytest.approx(5.0, rel=1e-12)
    assert "train, one step in 8" in curves(loss_figure(found))


def test_what_is_no_number_is_left_out():
    broken = RECORDS[0] | {"loss": None, "grad_norm": "x", "val_loss": float("nan")}
    found = Curves([broken, RECORDS[1]])
    assert [point[0] for point in found.loss.points] == [4] and [point[0] for point in found.norm.points] == [4]
    assert [point[0] for point in found.validation.points] == [4]
