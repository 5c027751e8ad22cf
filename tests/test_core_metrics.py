"""metrics.jsonl and its readers: console, TensorBoard."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.errors import InputError
from gpt_core.metrics import (
    FIELDS,
    VALIDATION_FIELDS,
    TensorBoard,
    append,
    clipped_norm,
    console_line,
    keep_until,
    read_metrics,
    refuse_non_finite,
)


def record(step: int, **more: object) -> dict:
    """The reference run's line of step 538, at another step."""
    values = (step, 0.3670, 2048 * step, 3.238296, 1e-3, 1.875, 1.0, 396.05, 5171.06, 61.07, 1.5)
    return dict(zip(FIELDS, values, strict=True)) | more


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_field_names_are_the_contract():
    """DESIGN.md, section 5, run folder."""
    contract = "step, epoch, tokens, loss, lr, grad_norm, clipped_grad_norm, step_ms, tokens_per_s, mfu_pct, peak_mem_gib"
    assert list(FIELDS) == contract.split(", ")
    assert list(VALIDATION_FIELDS) == ["val_loss", "val_bpb", "val_bpb_stream"]


def test_a_record_is_one_line_of_json(path):
    append(path, record(1))
    append(path, record(2, mfu_pct=None, val_loss=1.5))
    lines = path.read_text().split("\n")
    assert len(lines) == 3 and lines[2] == ""
    assert [json.loads(line) for line in lines[:2]] == [record(1), record(2, mfu_pct=None, val_loss=1.5)]
    assert "null" in lines[1]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5), st.integers(0, 1200))
def test_a_file_cut_anywhere_gives_its_whole_records(tmp_path_factory, losses, cut):
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    path.touch()
    for step, loss in enumerate(losses, start=1):
        append(path, record(step, loss=loss))
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    assert read_metrics(path) == [record(step, loss=loss) for step, loss in enumerate(losses[:whole], start=1)]


def with_second(path: Path, line: str | bytes) -> None:
    """A metrics file of three lines of which the second is `line`."""
    first, last = (json.dumps(record(step)).encode() for step in (1, 3))
    path.write_bytes(b"\n".join([first, line.encode() if isinstance(line, str) else line, last, b""]))


def refuses(path: Path, line: str | bytes) -> None:
    with_second(path, line)
    with pytest.raises(InputError, match=r"^[^\n]*metrics\.jsonl, line 2 is not a metrics record[^\n]*$"):
        read_metrics(path)


def test_whole_lines_are_read(path):
    """Negative control of the refusals below; fields of a later version do no harm."""
    with_second(path, json.dumps(record(2, val_loss=1.5, more="x")))
    assert read_metrics(path) == [record(1), record(2, val_loss=1.5, more="x"), record(3)]


@pytest.mark.parametrize("line", ["", "{", "[1]", "3", "null", '"x"', "{}", '{"loss": 1.0}', '{"step": 2}', "[" * 9999])
def test_a_broken_line_is_refused_with_its_number(path, line):
    refuses(path, line)


@pytest.mark.parametrize("step", ["x", "2", None, 2.0, math.inf, [2]])
def test_a_step_that_is_no_whole_number_is_refused(path, step):
    refuses(path, json.dumps(record(2) | {"step": step}))


@pytest.mark.parametrize("name", FIELDS)
def test_a_line_without_one_of_the_fields_is_refused(path, name):
    refuses(path, json.dumps({field: value for field, value in record(2).items() if field != name}))


def test_a_byte_that_is_no_utf8_is_refused_wherever_it_is(path):
    line = json.dumps(record(2)).encode()
    for position in range(len(line)):
        refuses(path, line[:position] + b"\xff" + line[position + 1 :])


def test_a_missing_file_is_named(path):
    with pytest.raises(InputError, match=r"metrics\.jsonl is missing"):
        read_metrics(path)


def test_keep_until_drops_what_will_be_written_again(path):
    for step in (1, 2, 3, 4):
        append(path, record(step))
    with open(path, "a") as file:
        file.write('{"step": 5, "lo')  # cut off by a crash
    keep_until(path, 3)
    append(path, record(4, loss=9.0))
    assert [(r["step"], r["loss"]) for r in read_metrics(path)] == [(1, 3.238296), (2, 3.238296), (3, 3.238296), (4, 9.0)]
    keep_until(path, 0)
    assert path.read_bytes() == b""


def test_keep_until_starts_a_new_file(path):
    keep_until(path, 0)
    assert read_metrics(path) == []


def test_what_is_no_number_is_not_written(path):
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(InputError, match=r"^step 7 has loss .*not finite.*--lr"):
            append(path, record(7, loss=value))
    assert not path.exists() or path.read_bytes() == b""


def test_a_validation_loss_that_is_no_number_is_bad_input(path):
    with pytest.raises(InputError, match=r"^step 20 has val_loss, val_bpb_stream .*not finite") as error:
        append(path, record(20, val_loss=math.inf, val_bpb=1.0, val_bpb_stream=math.nan))
    assert "\n" not in str(error.value)
    assert not path.exists() or path.read_bytes() == b""


def test_console_line_of_the_reference_step():
    line = "step 538 | loss: 3.238296 | lr: 1.00e-03 | norm: 1.875 | dt: 396.05ms | tok/s: 5171"
    assert console_line(record(538, mfu_pct=None)) == line
    validated = record(538, val_loss=3.5, val_bpb=1.23456, val_bpb_stream=1.1)
    assert console_line(validated) == line + " | mfu: 61.1% | val loss: 3.5000 | val bpb: 1.2346 (rows) 1.1000 (stream)"


@pytest.mark.parametrize(
    ("norm", "limit", "expected"),
    [(0.0, 1.0, 0.0), (0.5, 1.0, 0.5), (0.999998, 1.0, 0.999998), (4.0, 1.0, 1 / (1 + 0.25e-6)), (3.0, 2.0, 6 / 3.000001)],
)
def test_clipped_norm_by_hand(norm, limit, expected):
    """norm x min(1, limit / (norm + 1e-6)): just below the limit nothing changes, above it the limit less 1e-6 / norm."""
    assert clipped_norm(norm, limit) == pytest.approx(expected, rel=1e-12)  # float64 roundings
    assert clipped_norm(norm, limit) <= limit


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (3.0, math.nan), (3.0, math.inf)])
def test_loss_or_norm_that_is_no_number_stops_the_run(loss, norm):
    with pytest.raises(InputError) as error:
        refuse_non_finite(loss, norm, step=538, lr=0.25, last_good="runs/x/step_000500")
    for part in ("step 538", f"loss {loss}", f"norm {norm}", "--lr 0.25", "runs/x/step_000500"):
        assert part in str(error.value)
    refuse_non_finite(3.0, 0.0, 538, 0.25, "none")


def test_tensorboard_events_can_be_read_back(tmp_path):
    """The files are records of a length, its check sum, an Event, its check sum."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    board = TensorBoard(tmp_path / "tensorboard", step=4)
    board.write(record(5, mfu_pct=None))
    board.write(record(6, val_loss=2.5))
    board.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    found = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert {tag for step, tag in found if step == 5} == set(FIELDS) - {"step", "mfu_pct"}
    assert {tag for step, tag in found if step == 6} == set(FIELDS) - {"step"} | {"val_loss"}
    assert found[6, "val_loss"] == 2.5
    assert found[5, "loss"] == pytest.approx(3.238296, rel=6e-8)  # stored as float32
