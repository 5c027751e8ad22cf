"""Finished runs: what is compared, what is left out, and that it is said."""

import math

import numpy as np
import pytest
from compare_samples import record, write_run

from compare.runs import compare_runs, read_runs
from gpt_core.errors import InputError


def compared(*folders):
    return compare_runs(read_runs(list(folders)))


def test_two_equal_runs_have_no_notes(tmp_path):
    records = [record(step) for step in range(1, 11)]
    found = compared(write_run(tmp_path / "a", records), write_run(tmp_path / "b", records))
    assert found.notes == []
    assert [(p.steps, p.last_step, p.worst_loss, p.last_loss, p.last_bits) for p in found.pairs] == [(10, 10, 0, 0, 0)]


def test_differences_on_common_steps_only(tmp_path):
    first = [record(step) for step in range(1, 6)]
    second = [record(step, loss=record(step)["loss"] + 0.25 * step) for step in range(1, 9)]
    found = compared(write_run(tmp_path / "a", first), write_run(tmp_path / "b", second))
    pair = found.pairs[0]
    assert (pair.steps, pair.last_step) == (5, 5)
    assert pair.worst_loss == pair.last_loss == pytest.approx(1.25)
    assert any("steps 6-8 exist in b only" in note for note in found.notes)


def test_another_tokenizer_refuses_losses_and_allows_bits(tmp_path):
    records = [record(step) for step in range(1, 4)]
    other = [record(step, val_bpb=1.5) for step in range(1, 4)]
    found = compared(write_run(tmp_path / "a", records), write_run(tmp_path / "b", other, tokenizer_size=300))
    assert [run.name for run in found.losses] == ["a"]
    assert found.pairs[0].worst_loss is None and found.pairs[0].last_loss is None
    assert found.pairs[0].last_bits == pytest.approx(1.5 - record(3)["val_bpb"])
    assert any("its tokenizer is not that of a" in note and "bits a byte are compared" in note for note in found.notes)


def test_another_manifest_is_a_warning_not_a_refusal(tmp_path):
    records = [record(1)]
    found = compared(write_run(tmp_path / "a", records), write_run(tmp_path / "b", records, manifest="n" * 64))
    assert len(found.losses) == 2 and any("only if it is the same text" in note for note in found.notes)


def test_without_a_checkpoint_the_tokenizer_is_unknown(tmp_path):
    records = [record(1)]
    found = compared(write_run(tmp_path / "a", records), write_run(tmp_path / "b", records, tokenizer_size=None))
    assert [run.name for run in found.losses] == ["a"]
    assert any("the tokenizer of b is unknown" in note for note in found.notes)
    assert any("no checkpoint to put through the twins" in note for note in found.notes)


def test_missing_records_are_named(tmp_path):
    folder = write_run(tmp_path / "a", [record(step) for step in (3, 4, 8, 9, 11)])
    assert any("6 steps have no record and are left out (1-2, 5-7, 10)" in note for note in compared(folder).notes)


def test_records_without_a_loss_are_left_out_of_it(tmp_path):
    rows = [record(1), record(2, loss=None), record(3, loss=math.nan), record(4, loss=True)]
    run = read_runs([write_run(tmp_path / "a", rows)])[0]
    assert run.series("loss")[0].tolist() == [1]
    assert any("3 of 4 records have no finite loss" in note for note in run.notes)
    assert run.series("nothing")[1].dtype == np.float64


def test_a_repeated_step_counts_once_and_the_last_wins(tmp_path):
    run = read_runs([write_run(tmp_path / "a", [record(1, loss=9.0), record(2), record(1, loss=5.0)])])[0]
    assert run.series("loss")[1].tolist() == [5.0, record(2)["loss"]]
    assert any("1 records repeat a step" in note for note in run.notes)


def test_a_cut_off_record_is_left_out(tmp_path):
    folder = write_run(tmp_path / "a", [record(1), record(2)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    run = read_runs([folder])[0]
    assert len(run.records) == 2 and any("cut off" in note for note in run.notes)


def test_no_validation_is_said(tmp_path):
    rows = [{field: value for field, value in record(1).items() if field != "val_bpb"}]
    assert any("no record has bits a byte" in note for note in compared(write_run(tmp_path / "a", rows)).notes)


def test_a_damaged_checkpoint_leaves_the_curves(tmp_path):
    folder = write_run(tmp_path / "a", [record(1)])
    (folder / "step_000001" / "model.safetensors").write_bytes(b"no")
    run = read_runs([folder])[0]
    assert run.checkpoint is None and run.records and any("SHA-256" in note for note in run.notes)


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / part / "run", [record(1)]) for part in "xy"]
    assert [run.name for run in read_runs(folders)] == [str(folder) for folder in folders]


def test_no_common_step(tmp_path):
    found = compared(write_run(tmp_path / "a", [record(1)]), write_run(tmp_path / "b", [record(2)]))
    assert (found.pairs[0].steps, found.pairs[0].worst_loss, found.pairs[0].last_bits) == (0, None, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [("", "no whole record"), ('{"step": 1', "no whole record"), ("[1]\n", "line 1"), ("nonsense\n", "line 1")],
)
def test_an_unreadable_run_is_refused(tmp_path, content, expected):
    folder = write_run(tmp_path / "a", [record(1)], tokenizer_size=None)
    (folder / "metrics.jsonl").write_text(content)
    with pytest.raises(InputError, match=expected):
        read_runs([folder])


def test_bytes_that_are_no_text_are_refused(tmp_path):
    folder = write_run(tmp_path / "a", [record(1)], tokenizer_size=None)
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(InputError):
        read_runs([folder])


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_runs([tmp_path / "none"])
