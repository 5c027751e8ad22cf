"""Validation during a run and `evaluate` after it, with models whose numbers are known."""

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import VAL_ROWS
from tokenizers import Tokenizer

from gpt_core import evaluation
from gpt_core.config import GPTConfig, TrainConfig
from gpt_core.dataset import open_dataset
from gpt_core.errors import InputError
from gpt_core.evaluation import RowScores, Source, difference, evaluate, figures, origins, report, text_stream
from gpt_core.scoring import TokenNats
from gpt_core.shards import TokenStream
from gpt_core.validation import Validation


def uniform(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """log2 512 = 9 bits for every token."""
    return np.full(targets.shape, math.log(512), dtype=np.float32)


def evaluated(tokens: TokenStream, tokenizer: Tokenizer, block_size: int, nats: TokenNats) -> dict[str, Any]:
    """The figures of a model over some rows."""
    return figures(*evaluate(tokens, tokenizer, block_size, nats))


CLOSE = 1e-7  # relative: ln 512 as float32 is 3e-8 off
MODEL = GPTConfig(vocab_size=512, block_size=16, n_layer=1, n_head=1, n_embd=8)


@pytest.fixture
def dataset(small_dataset):
    return open_dataset(small_dataset)


def test_evaluate_a_uniform_model_by_hand(dataset):
    """156 tokens of which 10 start rows: 146 + 10 ends in rows, 155 in the stream, each 9 bits."""
    result = evaluated(dataset.val, dataset.tokenizer, 16, uniform)
    tokens = len(dataset.val)
    size = sum(len(row.encode()) + 1 for row in VAL_ROWS)
    characters = sum(len(row) + 1 for row in VAL_ROWS)
    assert (result["rows"], result["tokens"], result["bytes"], result["characters"]) == (10, tokens, size, characters)
    assert result["val_bpb"] == pytest.approx(9 * tokens / size, rel=CLOSE)
    assert result["bits_per_character"] == pytest.approx(9 * tokens / characters, rel=CLOSE)
    # the stream: the first <|endoftext|> is not a target, and no row end follows the last row
    assert result["val_bpb_stream"] == pytest.approx(9 * (tokens - 1) / (size - 1), rel=CLOSE)
    assert result["val_loss"] == pytest.approx(math.log(512), rel=CLOSE)


def test_scripts_are_parts_of_the_whole(tokenizer, tmp_path):
    path = tmp_path / "rows.txt"
    rows = ["واش راك", "salut", "", "123 😂", "لاباس bb"]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = evaluated(text_stream(path, tokenizer), tokenizer, 8, uniform)
    assert {script: part["rows"] for script, part in result["scripts"].items()} == {"arabic": 2, "latin": 1, "other": 2}
    assert (
        sum(part["bytes"] for part in result["scripts"].values()) == result["bytes"] == sum(len(r.encode()) + 1 for r in rows)
    )
    latin = len(tokenizer.encode("salut").ids) + 1
    assert result["scripts"]["latin"]["val_bpb"] == pytest.approx(9 * latin / 6, rel=CLOSE)


def test_an_empty_part_is_left_out(tokenizer, tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("واش", encoding="utf-8")
    assert list(evaluated(text_stream(path, tokenizer), tokenizer, 8, uniform)["scripts"]) == ["arabic"]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a\nb", ["a", "b"]),
        ("a\nb\n", ["a", "b"]),
        ("a\n\n", ["a", ""]),
        ("a\r\nb", ["a", "b"]),
        (" a <|endoftext|>", [" a <|endoftext|>"]),
    ],
)
def test_text_is_read_as_it_stands_a_row_a_line(tokenizer, tmp_path, content, rows):
    path = tmp_path / "rows.txt"
    path.write_bytes(content.encode())
    stream = text_stream(path, tokenizer)
    tokens = stream.read(0, len(stream))
    assert [tokenizer.decode(part[1:]) for part in np.split(tokens, np.flatnonzero(tokens == 0))[1:]] == rows


@pytest.mark.parametrize(("content", "part"), [(b"", "is empty"), (b"ab\xff", "byte 2"), (b"a\0b", "NUL"),
                                               (b"\n", "empty rows only"), (b"\n\r\n\n", "empty rows only")])  # fmt: skip
def test_text_that_cannot_be_scored(tokenizer, tmp_path, content, part):
    path = tmp_path / "rows.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^--text .*rows\.txt .*{part}.*$") as error:
        text_stream(path, tokenizer)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"--text .* does not exist"):
        text_stream(tmp_path, tokenizer)


def test_an_empty_row_among_others_is_its_end(tokenizer, tmp_path):
    """Rows "", "é" and "": a token each for the ends, and those of é; a byte each for the ends, two for é."""
    path = tmp_path / "rows.txt"
    path.write_text("\né\n\n", encoding="utf-8")
    result = evaluated(text_stream(path, tokenizer), tokenizer, 8, uniform)
    assert (result["rows"], result["bytes"], result["characters"]) == (3, 5, 4)
    assert result["bits_per_character"] == pytest.approx(9 * (len(tokenizer.encode("é").ids) + 3) / 4, rel=CLOSE)


def source_of(dataset: Any, name: str, counted: Any = ()) -> Source:
    """A validation split to be scored by a checkpoint that is not there."""
    loaded: Any = SimpleNamespace(folder=f"runs/{name}/step_000500", step=500)
    return Source(loaded, [loaded], dataset.tokenizer, dataset.val, counted)


def test_the_last_line_of_the_report_is_json(dataset, capsys):
    scores = evaluate(dataset.val, dataset.tokenizer, 16, uniform)
    report([source_of(dataset, "x")], [scores])
    lines = capsys.readouterr().out.splitlines()
    found, expected = json.loads(lines[-1]), figures(*scores)
    assert found == json.loads(json.dumps(expected)) | {"checkpoint": "runs/x/step_000500", "step": 500}
    assert f"{expected['val_bpb']:.4f} bits a byte (95%: " in lines[1]


def test_sources_are_parts_of_the_whole(dataset, capsys):
    """Ten rows of two files in turns: 3 of a, 5 of b, 2 of a again."""
    said = [["a", 3], ["b", 5], ["a", 2]]
    counted = origins({"sources": {"val": said}}, "val", 10)
    report([source_of(dataset, "x", counted)], [evaluate(dataset.val, dataset.tokenizer, 16, uniform)])
    parts = json.loads(capsys.readouterr().out.splitlines()[-1])["sources"]
    sizes = [len(row.encode()) + 1 for row in VAL_ROWS]
    assert {name: (part["rows"], part["bytes"]) for name, part in parts.items()} == {
        "a": (5, sum(sizes[:3]) + sum(sizes[8:])),
        "b": (5, sum(sizes[3:8])),
    }
    ids = [len(dataset.tokenizer.encode(row).ids) + 1 for row in VAL_ROWS[3:8]]
    assert parts["b"]["val_bpb"] == pytest.approx(9 * sum(ids) / sum(sizes[3:8]), rel=CLOSE)
    assert origins({}, "val", 10) == origins({"sources": {"train": said}}, "val", 10) == []
    with pytest.raises(InputError, match="other than the 9 rows of its val split"):
        origins({"sources": {"val": said}}, "val", 9)


def scores_of(nats: np.ndarray, sizes: np.ndarray) -> RowScores:
    """Rows of given nats and bytes."""
    return RowScores(nats, sizes, sizes, sizes, np.full(len(nats), "arabic"))


def test_two_models_on_the_same_rows_by_hand():
    """4 and 3 bits on a row of 2 bytes, 6 and 6 on one of 4: 10/6 against 9/6, so 1/6 worse. Drawn twice over, the rows
    differ by 1/2, 1/6 or 0."""
    sizes = np.array([2, 4])
    found = difference(*(scores_of(np.array(bits) * math.log(2), sizes) for bits in ([4.0, 6.0], [3.0, 6.0])))
    assert found["val_bpb"] == pytest.approx(9 / 6) and found["difference"] == pytest.approx(1 / 6)
    assert found["difference_interval"] == pytest.approx((0.0, 0.5))


def test_the_paired_interval_is_narrower_than_those_of_either(dataset, capsys):
    """Rows of very different difficulty, one model 1 % better on each: apart they cannot be told, paired they can."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(10, 200, 400)
    nats = sizes * draw.uniform(0.5, 2.5, 400)
    one, other = scores_of(0.99 * nats * draw.uniform(0.99, 1.01, 400), sizes), scores_of(nats, sizes)
    stream = evaluate(dataset.val, dataset.tokenizer, 16, uniform)[1]
    report([source_of(dataset, "x"), source_of(dataset, "y")], [(one, stream), (other, stream)])
    out = capsys.readouterr().out.splitlines()
    found = json.loads(out[-1])
    low, high = found["val_bpb_interval"]
    assert low < found["against"]["val_bpb"] < high  # apart
    assert found["against"]["difference_interval"][1] < 0 and out[-2].endswith(": better")
    assert found["against"]["checkpoint"] == "runs/y/step_000500"
    report([source_of(dataset, "y"), source_of(dataset, "x")], [(other, stream), (one, stream)])
    assert capsys.readouterr().out.splitlines()[-2].endswith(": worse")
    report([source_of(dataset, "x"), source_of(dataset, "x")], [(one, stream), (one, stream)])
    assert capsys.readouterr().out.splitlines()[-2].endswith("+0.0000 (95%: +0.0000 to +0.0000): no clear difference")


def test_evaluate_needs_exactly_one_source(capsys):
    for words in ([], ["--data", "d", "--text", "t"]):
        with pytest.raises(SystemExit):
            evaluation.parser("mlx_gpt", ("auto",)).parse_args(["--checkpoint", "c", *words])
    assert capsys.readouterr().err.count("\n") == 2


def test_validation_of_a_uniform_model(dataset):
    measured = Validation(dataset, MODEL, TrainConfig(micro_batch_size=2, val_batches=2)).measure(uniform)
    assert set(measured) == {"val_loss", "val_bpb", "val_bpb_stream"}
    assert measured["val_loss"] == pytest.approx(math.log(512), rel=CLOSE)


def test_validation_over_everything_agrees_with_evaluate(dataset):
    """With batches for the whole split the row number is that of `evaluate`; a model whose nats differ by token."""

    def by_token(inputs, targets):
        return (targets % 7 + 1).astype(np.float32)

    validation = Validation(dataset, MODEL, TrainConfig(micro_batch_size=3, val_batches=99))
    whole = evaluated(dataset.val, dataset.tokenizer, 16, by_token)
    assert validation.measure(by_token)["val_bpb"] == pytest.approx(whole["val_bpb"], rel=1e-12)  # float64 sums
    few = Validation(dataset, MODEL, TrainConfig(micro_batch_size=1, val_batches=1)).measure(by_token)
    assert few["val_bpb"] != pytest.approx(whole["val_bpb"], rel=1e-3)  # negative control: fewer rows, another number


def test_validation_scores_about_val_batches_of_tokens(dataset):
    """Four batches of 2 x 16 = 128 tokens of windows, and rows of about as many (156 tokens in 10 rows: 8 rows)."""
    seen: list[tuple[int, ...]] = []

    def record(inputs, targets):
        seen.append(inputs.shape)
        return np.zeros(targets.shape, dtype=np.float32)

    validation = Validation(dataset, MODEL, TrainConfig(micro_batch_size=2, val_batches=4))
    validation.measure(record)
    assert seen[:4] == [(2, 16)] * 4 and set(seen[4:]) == {(2, 16)}
    first = list(seen)
    validation.measure(record)
    assert seen == first * 2
