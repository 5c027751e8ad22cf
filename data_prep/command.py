"""The command line: flags, their limits, and what may be overwritten."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_prep.clean import DIACRITICS_CHOICES
from data_prep.latin import LATIN_CHOICES
from data_prep.options import Options
from data_prep.pipeline import prepare
from data_prep.rules import REQUIRED, RULES
from data_prep.sources import open_source
from data_prep.spool import LATER
from data_prep.summary import report, summary
from data_prep.train_tokenizer import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, WORDS
from gpt_core.cli import Parser
from gpt_core.dataset import MANIFEST
from gpt_core.errors import InputError
from gpt_core.files import read_json, refuse_existing
from gpt_core.tokens import load_tokenizer, token_table

MIN_SHARDS, MAX_SHARDS = 2, 1000
MIN_VAL_FRACTION, MAX_VAL_FRACTION = 0.001, 0.5
MAX_TEST_FRACTION = 0.3
SKIPPABLE = (*(rule for rule in RULES if rule not in REQUIRED and rule != "diacritics"), "few_letters", *LATER)
"""Rules and reasons that --skip-rules may name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; prints a report and, as the last line of stdout, one JSON object."""
    args = parser().parse_args(arguments)
    options = checked_options(args)
    source = open_source(args.source)
    out = checked_out(Path(args.out), args.overwrite, source.files)
    manifest = prepare(source, out, options, args.tokenizer)
    print(report(manifest))
    print(summary(manifest, Path(args.out)))


def parser() -> Parser:
    """The flags of python -m data_prep."""
    default = Options()
    made = Parser(prog="python -m data_prep", description="Makes training data: tokenizer.json, token shards, manifest.json.")
    made.add_argument(
        "--source",
        nargs="+",
        default=["hub"],
        metavar="SOURCE",
        help="hub (the Hugging Face dataset), sample (the embedded corpus), or files: .parquet, .jsonl, .csv with a "
        "column Text or text, .txt with a row a line",
    )
    made.add_argument("--out", default="data/darija", metavar="DIR", help="folder to make")
    made.add_argument(
        "--latin",
        choices=LATIN_CHOICES,
        default=default.latin,
        help="words with Latin letters (French, Arabizi): drop the words, drop the French ones only, drop the rows that "
        "have one, or keep them",
    )
    made.add_argument("--diacritics", choices=DIACRITICS_CHOICES, default=default.diacritics, help="Arabic vowel signs")
    made.add_argument(
        "--skip-rules",
        default="",
        metavar="NAME,...",
        help=f"cleaning rules and reasons to drop a row that are left out: {', '.join(SKIPPABLE)}",
    )
    made.add_argument(
        "--vocab-size",
        type=int,
        default=default.vocab_size,
        metavar="N",
        help="tokens, with bytes and <|endoftext|>",
    )
    made.add_argument(
        "--pre-tokenizer",
        choices=WORDS,
        default=default.pre_tokenizer,
        help="what a token may not cross: gpt2 cuts letters from their combining marks, such as vowel signs; marks keeps "
        "them together, and can then not be written as GGUF",
    )
    made.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="encode with this tokenizer.json instead of training one, to go on from a model that has it (--init-from)",
    )
    made.add_argument("--shards", type=int, default=default.shards, metavar="N", help="token files of train and val in all")
    made.add_argument(
        "--val-fraction", type=float, default=default.val_fraction, metavar="X", help="share of rows for validation"
    )
    made.add_argument(
        "--test-fraction",
        type=float,
        default=default.test_fraction,
        metavar="X",
        help="share for the test split; 0: none",
    )
    made.add_argument("--seed", type=int, default=default.seed, metavar="N", help="decides which blocks of rows are held out")
    made.add_argument("--overwrite", action="store_true", help="replace the dataset in --out")
    return made


def checked_options(args: argparse.Namespace) -> Options:
    """The options, or InputError for the first that is out of bounds."""
    vocab_size = args.vocab_size if args.tokenizer is None else known_size(args.tokenizer)
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise InputError(f"--vocab-size {vocab_size}: expected {MIN_VOCAB_SIZE} to {MAX_VOCAB_SIZE}, since tokens are uint16")
    if args.tokenizer is not None and args.pre_tokenizer != Options().pre_tokenizer:
        raise InputError(f"--pre-tokenizer {args.pre_tokenizer} has no effect with --tokenizer {args.tokenizer}: drop one")
    if not MIN_SHARDS <= args.shards <= MAX_SHARDS:
        raise InputError(f"--shards {args.shards}: expected {MIN_SHARDS} to {MAX_SHARDS}, at least one for each split")
    if not MIN_VAL_FRACTION <= args.val_fraction <= MAX_VAL_FRACTION:
        raise InputError(f"--val-fraction {args.val_fraction:g}: expected {MIN_VAL_FRACTION} to {MAX_VAL_FRACTION}")
    if args.test_fraction != 0 and not MIN_VAL_FRACTION <= args.test_fraction <= MAX_TEST_FRACTION:
        expected = f"0 or {MIN_VAL_FRACTION} to {MAX_TEST_FRACTION}"
        raise InputError(f"--test-fraction {args.test_fraction:g}: expected {expected}")
    skipped = tuple(dict.fromkeys(name for name in args.skip_rules.split(",") if name))
    for name in skipped:
        if name not in SKIPPABLE:
            raise InputError(f"--skip-rules {name}: no such rule; expected some of {','.join(SKIPPABLE)}")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: expected 0 or more")
    return Options(
        args.latin,
        args.diacritics,
        skipped,
        args.pre_tokenizer,
        vocab_size,
        args.shards,
        args.val_fraction,
        args.test_fraction,
        args.seed,
    )


def known_size(path: Path) -> int:
    """Tokens of a given tokenizer, which must be byte-level as ours are and change no text. Raises InputError."""
    tokenizer = load_tokenizer(path)
    if tokenizer.normalizer is not None:
        raise InputError(f"--tokenizer {path} has a normalizer, which changes texts before it encodes them: give one without")
    return len(token_table(tokenizer).bytes)


def _is_dataset(folder: Path) -> bool:
    """Whether data_prep made it: its manifest says so or, if that is damaged, the shards beside it."""
    if not (folder / MANIFEST).is_file():
        return False
    try:
        return {"format_version", "shards"} <= set(read_json(folder / MANIFEST))
    except InputError:
        return any(folder.glob("darija_train_*.bin"))


def checked_out(out: Path, overwrite: bool, sources: Sequence[Path]) -> Path:
    """The folder to make, links followed, or InputError where it may not be made or replaced."""
    refuse_existing(out, "--out", overwrite)
    folder = out.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not _is_dataset(folder):
        raise InputError(
            f"--out {out} holds files but no {MANIFEST} of data_prep: it is no dataset and is not replaced; choose another "
            "folder"
        )
    for source in sources:
        if source.resolve().is_relative_to(folder):
            raise InputError(f"--out {out} holds the source {source}, which would be lost: choose another folder")
    return folder
