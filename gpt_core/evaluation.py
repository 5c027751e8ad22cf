"""`evaluate`: a checkpoint's bits per byte on a validation split or on the rows of a text file, alone or against another."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gpt_core import checkpoint
from gpt_core.bootstrap import CONFIDENCE, ratio_interval
from gpt_core.checkpoint import Checkpoint
from gpt_core.cli import Parser
from gpt_core.dataset import MANIFEST, held_out, open_dataset
from gpt_core.errors import InputError
from gpt_core.progress import bar
from gpt_core.rows import read_row, row_starts
from gpt_core.scoring import (
    SCRIPTS,
    Score,
    TokenNats,
    score,
    score_rows,
    script_of,
    stream_windows,
)
from gpt_core.shards import TokenStream
from gpt_core.tokens import END_OF_TEXT_ID, TokenTable, load_tokenizer, token_table

TOKENS_PER_BATCH = 4096
ROWS_AT_A_TIME = 2048


def parser(twin: str, devices: tuple[str, ...]) -> Parser:
    """The command line of `python -m <twin>.evaluate`."""
    made = Parser(prog=f"python -m {twin}.evaluate", description="Bits per byte of a checkpoint; the last line is JSON.")
    made.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a run folder or a step_NNNNNN folder")
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="dataset folder of which a split is scored")
    source.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text, scored as it stands, a row a line")
    made.add_argument(
        "--against", type=Path, metavar="DIR", help="another checkpoint, scored on the same rows: which of the two is better?"
    )
    made.add_argument(
        "--ensemble",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="more checkpoints, whose probabilities are averaged with those of --checkpoint",
    )
    made.add_argument("--split", choices=("val", "test"), default="val", help="which split of --data; test is for the very end")
    made.add_argument("--device", choices=devices, default="auto", help="where to compute")
    return made


@dataclass(frozen=True)
class Source:
    """A checkpoint, and what it is to score."""

    checkpoint: Checkpoint
    members: Sequence[Checkpoint]
    """The checkpoint, and those whose probabilities are averaged with its own."""
    tokenizer: Tokenizer
    tokens: TokenStream
    origins: Sequence[tuple[str, int]]
    """Names of the files that the rows came from, with counts of rows in succession; none where they are not known."""

    @property
    def block_size(self) -> int:
        """Context length of the model, tokens."""
        return self.checkpoint.model.block_size


def load_sources(args: argparse.Namespace) -> list[Source]:
    """The checkpoint, then that of --against, each with the rows as its own tokens. Raises InputError before any work."""
    sources = [load_source(args.checkpoint, "--checkpoint", args, args.ensemble)]
    if args.against is not None:
        sources.append(load_source(args.against, "--against", args))
    return sources


def load_members(first: Checkpoint, others: Sequence[Path]) -> list[Checkpoint]:
    """A checkpoint and those averaged with it: of the same tokenizer and context, since they score the same windows."""
    members = [first]
    for path in others:
        loaded = checkpoint.load(checkpoint.find(path, "--ensemble"), moments=False)
        if (loaded.tokenizer_sha256, loaded.model.block_size) != (first.tokenizer_sha256, first.model.block_size):
            raise InputError(
                f"--ensemble {path} has another tokenizer or another block_size ({loaded.model.block_size}) than "
                f"{first.folder} ({first.model.block_size}): only models of the same can be averaged"
            )
        members.append(loaded)
    return members


def load_source(path: Path, flag: str, args: argparse.Namespace, others: Sequence[Path] = ()) -> Source:
    """One checkpoint and those averaged with it, its tokenizer, and the tokens to score."""
    loaded = checkpoint.load(checkpoint.find(path, flag), moments=False)
    tokenizer = load_tokenizer(loaded.folder / checkpoint.TOKENIZER)
    if args.text is not None:
        if args.split == "test":
            raise InputError("--split test is a split of --data DIR: leave it out with --text FILE")
        return Source(loaded, load_members(loaded, others), tokenizer, text_stream(args.text, tokenizer), ())
    dataset = open_dataset(args.data)
    if dataset.tokenizer_sha256 != loaded.tokenizer_sha256:
        raise InputError(
            f"--data {args.data} has the tokenizer {dataset.tokenizer_sha256[:12]}..., the checkpoint was trained with "
            f"{loaded.tokenizer_sha256[:12]}...: score the text itself with --text FILE"
        )
    tokens = held_out(dataset, args.split)
    found = origins(dataset.manifest, args.split, len(row_starts(tokens)))
    return Source(loaded, load_members(loaded, others), tokenizer, tokens, found)


def origins(manifest: dict[str, Any], split: str, rows: int) -> Sequence[tuple[str, int]]:
    """What the manifest says of the sources of a split's rows, in their order; nothing if it says nothing."""
    said = manifest.get("sources", {}).get(split, [])
    if said and sum(count for _, count in said) != rows:
        raise InputError(f"{MANIFEST} names sources of other than the {rows} rows of its {split} split: make the data again")
    return [(name, count) for name, count in said]


def text_stream(path: Path, tokenizer: Tokenizer) -> TokenStream:
    """The rows of a text file as a stream of tokens, uncleaned."""
    if not path.is_file():
        raise InputError(f"--text {path} does not exist: give a UTF-8 text file, a row a line")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--text {path} is not UTF-8 at byte {error.start}: give a text file, a row a line") from error
    if "\0" in text:
        raise InputError(f"--text {path} holds NUL characters: give a text file, a row a line")
    rows = text.removesuffix("\n").split("\n") if text else []
    if not rows:
        raise InputError(f"--text {path} is empty: give a text file, a row a line")
    if not any(rows):
        raise InputError(f"--text {path} has empty rows only: give a text file, a row a line")
    encoded = tokenizer.encode_batch(rows, add_special_tokens=False)
    return TokenStream([np.array([END_OF_TEXT_ID, *row.ids], dtype=np.uint16) for row in encoded])


@dataclass(frozen=True)
class RowScores:
    """Sums over the targets of each row, arrays of (rows,): nats as float64, whole numbers as int64."""

    nats: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    characters: np.ndarray
    scripts: np.ndarray
    """The script of most letters, as in SCRIPTS."""

    def sum(self, chosen: np.ndarray | slice = slice(None)) -> Score:
        """The score of some rows together."""
        tokens, size, characters = (int(part[chosen].sum()) for part in (self.tokens, self.bytes, self.characters))
        return Score(float(self.nats[chosen].sum()), tokens, size, characters, len(self.nats[chosen]))


def evaluate(tokens: TokenStream, tokenizer: Tokenizer, block_size: int, token_nats: TokenNats) -> tuple[RowScores, Score]:
    """Both metrics over all of `tokens`: of each row alone, and of the packed stream."""
    if len(tokens) < 2:
        raise InputError("there is nothing to score: a split of one token; give other --data, or --text FILE")
    table = token_table(tokenizer)
    rows = score_every_row(tokens, table, block_size, token_nats)
    batch_size = max(1, TOKENS_PER_BATCH // block_size)
    batches = math.ceil((len(tokens) - 1) / (batch_size * block_size))
    windows = bar(stream_windows(tokens, block_size, batch_size), total=batches, desc="stream", unit="batch")
    return rows, score(iter(windows), token_nats, table)


def score_every_row(tokens: TokenStream, table: TokenTable, block_size: int, token_nats: TokenNats) -> RowScores:
    """Each row scored alone, with the end that follows it."""
    starts = row_starts(tokens)
    parts: list[list[np.ndarray]] = []
    with bar(total=len(starts), desc="rows", unit="row") as progress:
        for first in range(0, len(starts), ROWS_AT_A_TIME):
            rows = [read_row(tokens, starts, row) for row in range(first, min(first + ROWS_AT_A_TIME, len(starts)))]
            nats = score_rows(rows, block_size, TOKENS_PER_BATCH, token_nats)
            counts = [[len(row) - 1, table.bytes[row[1:]].sum(), table.characters[row[1:]].sum()] for row in rows]
            scripts = np.array([script_of(row, table) for row in rows])
            parts.append([nats, *np.array(counts, dtype=np.int64).T, scripts])
            progress.update(len(rows))
    return RowScores(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def figures(rows: RowScores, stream: Score, origins: Sequence[tuple[str, int]] = ()) -> dict[str, Any]:
    """What is reported: the whole, then the rows by script and, where they are known, by source."""
    whole = rows.sum()
    result = {
        "val_bpb": whole.bits_per_byte,
        "val_bpb_interval": _interval(rows),
        "confidence": CONFIDENCE,
        "val_bpb_stream": stream.bits_per_byte,
        "val_loss": stream.loss,
        "bits_per_character": whole.bits_per_character,
        "rows": whole.rows,
        "tokens": whole.tokens,
        "bytes": whole.bytes,
        "characters": whole.characters,
        "scripts": _parts(rows, rows.scripts, SCRIPTS),
    }
    if origins:
        names = [name for name, _ in origins]
        source = np.repeat(names, [count for _, count in origins])
        result["sources"] = _parts(rows, source, list(dict.fromkeys(names)))
    return result


def difference(rows: RowScores, other: RowScores) -> dict[str, Any]:
    """Bits a byte of one model less those of another on the same rows, with the paired interval; below 0 is better."""
    bits = (rows.nats - other.nats) / math.log(2)
    return {
        "val_bpb": other.sum().bits_per_byte,
        "difference": float(bits.sum() / rows.bytes.sum()),
        "difference_interval": ratio_interval(bits, rows.bytes),
    }


def _interval(rows: RowScores, chosen: np.ndarray | slice = slice(None)) -> tuple[float, float]:
    return ratio_interval(rows.nats[chosen] / math.log(2), rows.bytes[chosen])


def _parts(rows: RowScores, label: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    parts = {}
    for name in names:
        chosen = np.flatnonzero(label == name)
        if len(chosen):
            part = rows.sum(chosen)
            parts[name] = {
                "rows": part.rows,
                "bytes": part.bytes,
                "val_bpb": part.bits_per_byte,
                "val_bpb_interval": _interval(rows, chosen),
                "bits_per_character": part.bits_per_character,
            }
    return parts


def report(sources: Sequence[Source], scores: Sequence[tuple[RowScores, Score]]) -> None:
    """Prints a table for people, then the same as one line of JSON."""
    source, (rows, stream) = sources[0], scores[0]
    result = figures(rows, stream, source.origins)
    folder, others = source.checkpoint.folder, [str(member.folder) for member in source.members[1:]]
    if others:
        print(f"probabilities averaged with {', '.join(others)}")
        result["ensemble"] = others
    print(f"{folder}: {result['rows']} rows, {result['bytes']} bytes with row ends, {result['tokens']} tokens")
    print(f"  row by row      {_bits(result)}, {result['bits_per_character']:.4f} bits a character")
    for name, part in (result["scripts"] | result.get("sources", {})).items():
        print(f"    {name:<12}  {_bits(part)}, {part['rows']} rows")
    print(f"  packed stream   {result['val_bpb_stream']:.4f} bits a byte, {result['val_loss']:.4f} nats a token")
    for other, (other_rows, _) in zip(sources[1:], scores[1:], strict=True):
        found = difference(rows, other_rows)
        low, high = found["difference_interval"]
        verdict = "better" if high < 0 else "worse" if low > 0 else "no clear difference"
        print(f"  against {other.checkpoint.folder}: {found['val_bpb']:.4f} bits a byte, row by row")
        print(f"    difference    {found['difference']:+.4f} ({CONFIDENCE:.0%}: {low:+.4f} to {high:+.4f}): {verdict}")
        result["against"] = found | {"checkpoint": str(other.checkpoint.folder), "step": other.checkpoint.step}
    print(json.dumps(result | {"checkpoint": str(folder), "step": source.checkpoint.step}))


def _bits(part: dict[str, Any]) -> str:
    low, high = part["val_bpb_interval"]
    return f"{part['val_bpb']:.4f} bits a byte ({CONFIDENCE:.0%}: {low:.4f} to {high:.4f})"
