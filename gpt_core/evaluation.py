"""`evaluate`: a checkpoint's bits per byte on a validation split or on the rows of a text file."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from gpt_core import checkpoint
from gpt_core.checkpoint import Checkpoint
from gpt_core.cli import Parser
from gpt_core.dataset import open_dataset
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
    sum_rows,
)
from gpt_core.shards import TokenStream
from gpt_core.tokens import END_OF_TEXT_ID, load_tokenizer, token_table

TOKENS_PER_BATCH = 4096
ROWS_AT_A_TIME = 2048


def parser(twin: str, devices: tuple[str, ...]) -> Parser:
    """The command line of `python -m <twin>.evaluate`."""
    made = Parser(prog=f"python -m {twin}.evaluate", description="Bits per byte of a checkpoint; the last line is JSON.")
    made.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a run folder or a step_NNNNNN folder")
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="dataset folder whose validation split is scored")
    source.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text, scored as it stands, a row a line")
    made.add_argument("--device", choices=devices, default="auto", help="where to compute")
    return made


def load_source(args: argparse.Namespace) -> tuple[Checkpoint, Tokenizer, TokenStream]:
    """The checkpoint, its tokenizer, and the tokens to score. Raises InputError before any work."""
    loaded = checkpoint.load(checkpoint.find(args.checkpoint, "--checkpoint"))
    tokenizer = load_tokenizer(loaded.folder / checkpoint.TOKENIZER)
    if args.text is not None:
        return loaded, tokenizer, text_stream(args.text, tokenizer)
    dataset = open_dataset(args.data)
    if dataset.tokenizer_sha256 != loaded.tokenizer_sha256:
        raise InputError(
            f"--data {args.data} has the tokenizer {dataset.tokenizer_sha256[:12]}..., the checkpoint was trained with "
            f"{loaded.tokenizer_sha256[:12]}...: score the text itself with --text FILE"
        )
    return loaded, tokenizer, dataset.val


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


def evaluate(tokens: TokenStream, tokenizer: Tokenizer, block_size: int, token_nats: TokenNats) -> dict[str, Any]:
    """Both metrics over all of `tokens`, and the row metric by the script of the rows."""
    if len(tokens) < 2:
        raise InputError("there is nothing to score: a validation split of one token; give other --data, or --text FILE")
    table = token_table(tokenizer)
    starts = row_starts(tokens)
    by_script = {script: Score() for script in SCRIPTS}
    with bar(total=len(starts), desc="rows", unit="row") as progress:
        for first in range(0, len(starts), ROWS_AT_A_TIME):
            rows = [read_row(tokens, starts, row) for row in range(first, min(first + ROWS_AT_A_TIME, len(starts)))]
            nats = score_rows(rows, block_size, TOKENS_PER_BATCH, token_nats)
            scripts = np.array([script_of(row, table) for row in rows])
            for script in SCRIPTS:
                chosen = np.flatnonzero(scripts == script)
                by_script[script] += sum_rows([rows[i] for i in chosen], nats[chosen], table)
            progress.update(len(rows))
    batch_size = max(1, TOKENS_PER_BATCH // block_size)
    batches = math.ceil((len(tokens) - 1) / (batch_size * block_size))
    windows = bar(stream_windows(tokens, block_size, batch_size), total=batches, desc="stream", unit="batch")
    stream = score(iter(windows), token_nats, table)
    whole = sum(by_script.values(), Score())
    return {
        "val_bpb": whole.bits_per_byte,
        "val_bpb_stream": stream.bits_per_byte,
        "val_loss": stream.loss,
        "bits_per_character": whole.bits_per_character,
        "rows": whole.rows,
        "tokens": whole.tokens,
        "bytes": whole.bytes,
        "characters": whole.characters,
        "scripts": {script: _summary(part) for script, part in by_script.items() if part.rows},
    }


def _summary(part: Score) -> dict[str, Any]:
    return {
        "rows": part.rows,
        "bytes": part.bytes,
        "val_bpb": part.bits_per_byte,
        "bits_per_character": part.bits_per_character,
    }


def report(result: dict[str, Any], loaded: Checkpoint) -> None:
    """Prints a table for people, then the same as one line of JSON."""
    print(f"{loaded.folder}: {result['rows']} rows, {result['bytes']} bytes with row ends, {result['tokens']} tokens")
    print(f"  row by row      {result['val_bpb']:.4f} bits a byte, {result['bits_per_character']:.4f} bits a character")
    for script, part in result["scripts"].items():
        print(f"    {script:<8}      {part['val_bpb']:.4f} bits a byte, {part['rows']} rows")
    print(f"  packed stream   {result['val_bpb_stream']:.4f} bits a byte, {result['val_loss']:.4f} nats a token")
    print(json.dumps(result | {"checkpoint": str(loaded.folder), "step": loaded.step}))
