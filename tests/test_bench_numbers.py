"""The arithmetic of the benchmarks, against numbers worked out by hand."""

import dataclasses
import itertools
import json
import subprocess
import sys

import pytest
from commands import ROOT, call

from benchmarks import machine
from benchmarks.costs import Part, parts
from benchmarks.peaks import measured_tflops
from benchmarks.report import notes
from benchmarks.roofline import BANDWIDTH, REFERENCE_MS, part_seconds, predict, predicted_ms
from benchmarks.rows import Row
from benchmarks.timing import Spread, rounds, seconds, spread, time_tokens
from benchmarks.train_speed import row, strangers
from gpt_core.config import GPTConfig, TrainConfig, presets
from gpt_core.peaks import APPLE

SEED = presets()["seed"]
SMALL = (GPTConfig(vocab_size=8, block_size=4, n_layer=1, n_head=1, n_embd=2), TrainConfig(micro_batch_size=3, accumulation=2))


class Fake:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, amount: float) -> None:
        self.now += amount


def test_spread_and_rate():
    found = spread([4.0, 1.0, 2.0, 8.0, 3.0])
    assert found == Spread(3.0, 1.0, 8.0)
    assert found.rate(24) == Spread(8.0, 3.0, 24.0), "the longest trial is the slowest"
    assert found.scaled(1000) == Spread(3000.0, 1000.0, 8000.0)


def test_seconds_is_what_the_work_took():
    clock = Fake()
    assert seconds(lambda: clock.wait(0.25), clock) == 0.25


def test_time_tokens_parts_the_first_token_from_the_others():
    clock = Fake()

    def tokens():
        for wait in (5.0, 1.0, 2.0):
            clock.wait(wait)
            yield 7

    assert time_tokens(tokens(), clock) == (5.0, 3.0, 3)


def test_rounds_ask_everyone_once_and_start_one_further_each():
    assert rounds(3, 4) == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_matmul_peak_is_the_best_rate_and_stops_at_long_products():
    clock, tried = Fake(), []
    taken = {10: 0.01, 20: 0.02, 40: 0.5, 80: 1.0}

    def product(n):
        tried.append(n)
        waits = itertools.chain([9.0], itertools.repeat(taken[n]))  # the first one compiles
        return lambda: clock.wait(next(waits))

    assert measured_tflops(product, clock, (10, 20, 40, 80)) == pytest.approx(2 * 20**3 / 0.02 / 1e12)
    assert tried == [10, 20, 40]


def facts(chip: str) -> dict:
    return {"engine": "torch", "device": "mps", "dtype": "float32", "chip": chip, "versions": {}}


def trained(chip: str = "Apple M1 Pro", loss: float | None = 9.2, peak: float | None = None) -> Row:
    trials = [{"seconds": 2 * REFERENCE_MS / 1000 * k, "peak_memory": 2**30 * k, "resident": 2**31} for k in (1, 1, 1, 2, 4)]
    splits = [{"data": 0.001, "forward_backward": 0.3, "optimizer": 0.04}] * 3
    return row(*SEED, facts(chip), {"steps": 2, "first_loss": loss}, trials, splits, 4.0, peak)


def test_mfu_of_the_reference_run():
    """2,048 tokens in 396.05 ms, 614,145,024 FLOPs a token: 3.1758 TFLOPS, of 5.2 and of 4.0."""
    found = trained()
    assert found.rate.median == pytest.approx(5171.06, abs=0.01)
    assert found.rate.low == pytest.approx(5171.06 / 4, abs=0.01)
    assert found.details["mfu_nominal_pct"] == pytest.approx(61.07, abs=0.01)
    assert found.details["mfu_matmul_pct"] == pytest.approx(79.39, abs=0.01)
    assert found.details["step_ms"].median == pytest.approx(396.05)
    assert found.details["split_ms"] == pytest.approx({"data": 1, "forward_backward": 300, "optimizer": 40})
    assert (found.details["peak_mem_gib"], found.details["peak_rss_gib"]) == (4.0, 2.0)


def test_mfu_needs_a_known_peak_or_a_given_one():
    assert trained("AMD EPYC CPU").details["mfu_nominal_pct"] is None
    assert trained("AMD EPYC CPU", peak=10.4).details["mfu_nominal_pct"] == pytest.approx(30.54, abs=0.01)
    assert trained(peak=10.4).details["nominal_tflops"] == 10.4


def test_the_peak_of_the_table_is_that_of_the_whole_chip():
    """And is no news to someone who gave another."""
    said = "peak of Apple M1 Pro: that of the chip with all its GPU cores"
    for found, times in ((trained(), 1), (trained(peak=4.6), 0), (trained("AMD EPYC CPU"), 0), (trained("Apple M99"), 0)):
        assert "\n".join(notes([found])).count(said) == times


def test_a_measured_step_stands_beside_its_prediction():
    assert trained().details["predicted_ms"] == pytest.approx(predict(*SEED, "M1 Pro").expected_ms)
    assert trained("Apple M4").details["predicted_ms"] is None
    assert predicted_ms(SEED[0], TrainConfig(dtype="bfloat16"), "Apple M1 Pro") is None


def test_another_model_is_found_by_its_first_loss():
    same = [trained(), trained(loss=None), trained(loss=9.2005)]
    assert strangers(same) == []
    assert strangers([*same, trained(loss=9.203)]) == ["torch mps float32"]


def test_costs_by_hand():
    """24 tokens, 64 weights in 5 matrices whose rows and columns sum to 42, 102 parameters."""
    found = {part.name: (part.flops, part.bytes) for part in parts(*SMALL)}
    assert found == {
        "matmuls": (6 * 64 * 24, 4 * 3 * (24 * 42 + 2 * 64)),
        "attention": (12 * 2 * 4 * 24, 4 * 24 * (11 * 4 + 12 * 2)),
        "norms, activations": (24 * (21 * 6 + 27 * 8 + 2 * 6), 4 * 24 * (5 * 6 + 5 * 8 + 6 * 6)),
        "cross-entropy": (6 * 8 * 24, 4 * 3 * 8 * 24),
        "accumulation": (2 * 102, 4 * 3 * 102 * 2),
        "clipping": (3 * 102, 4 * 3 * 102),
        "AdamW": (15 * 102, 4 * 7 * 102),
    }


def test_costs_of_muon_by_hand():
    """Matrices of 2 x 6, 2 x 2 and twice 2 x 8: 448 FLOPs and 576 values an iteration, five of them."""
    config, train = SMALL
    plain, found = parts(config, train), parts(config, dataclasses.replace(train, optimizer="muon"))
    assert found[:-1] == plain and found[-1] == Part("Muon", 5 * 448, 4 * 5 * 576, True)
    config, train = presets()["best"]
    adamw = dataclasses.replace(train, optimizer="adamw")
    assert predict(config, train, "M1 Pro").expected_ms > 1.2 * predict(config, adamw, "M1 Pro").expected_ms


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part("a", 2e12, 1e9), (2.0, "compute")),
        (Part("b", 2e12, 1e12), (10.0, "memory")),
        (Part("c", 1, 0), (1e-12, "compute")),
    ],
)
def test_roofline_takes_the_longer_of_computing_and_moving(part, expected):
    assert part_seconds(part, tflops=1.0, gb_per_s=100.0) == expected


def test_prediction_of_the_m1_pro():
    """92,798,976 weights in matrices, 2,048 tokens: 1.1403 TFLOP; AdamW moves 7 x 373 MB."""
    found = predict(*SEED, "M1 Pro")
    assert found.part_ms["matmuls"] == pytest.approx(219.29, abs=0.01)
    assert found.part_ms["AdamW"] == pytest.approx(13.06, abs=0.01)
    assert (found.limits["matmuls"], found.limits["AdamW"], found.binds) == ("compute", "memory", "compute")
    assert found.bound_ms == pytest.approx(sum(found.part_ms.values()))
    assert found.expected_ms - found.bound_ms == pytest.approx(219.29 * (1 / 0.82 - 1), abs=0.1), "attention waits for memory"
    assert found.bound_ms < found.expected_ms < REFERENCE_MS, "a prediction that the reference run beats is no bound"
    assert found.bound_mfu_pct == pytest.approx(100 * 614_145_024 * 2048 / 5.2e9 / found.bound_ms)


def test_every_chip_with_a_nominal_peak_has_a_bandwidth():
    assert set(BANDWIDTH) == set(APPLE)


def test_roofline_command(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "benchmarks.roofline", "--out", tmp_path / "new") == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert "prediction" in lines[0] and "nothing here was measured" in lines[0]
    assert [chip["chip"] for chip in found["chips"]] == list(APPLE)
    assert any("396.05" in line and "61 %" in line for line in lines)
    assert json.loads((tmp_path / "new" / "roofline_seed.json").read_text()) == found
    assert (tmp_path / "new" / "roofline_seed.png").read_bytes().startswith(b"\x89PNG")


def test_power_mode_of_a_mac():
    batt = "Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t100%; charged"
    assert machine.mac_power(" sleep 1\n lowpowermode         1\n", batt) == "power mode 1 (0 normal, 1 low, 2 high), AC Power"
    assert machine.mac_power("", "") is None


def test_a_result_is_named_by_the_gpu_that_took_part(monkeypatch):
    monkeypatch.setattr(machine, "processor", lambda: "AMD EPYC")
    assert machine.chip(["x86_64 CPU, 2 threads"]) == "AMD EPYC"
    assert machine.chip(["AMD EPYC CPU", "NVIDIA L4"]) == "NVIDIA L4"


def test_the_parent_process_loads_no_framework():
    script = "import sys, benchmarks.command, benchmarks.roofline; print([n for n in ('torch', 'mlx') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
