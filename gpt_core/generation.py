"""`generate`: the loop around a twin's forward pass, and its command line."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from gpt_core import checkpoint
from gpt_core.checkpoint import Checkpoint
from gpt_core.cli import Parser
from gpt_core.errors import InputError
from gpt_core.sampling import Sampling, choose
from gpt_core.tokens import END_OF_TEXT_ID, load_tokenizer

Forward = Callable[[list[int], Any], tuple[np.ndarray, Any]]
"""(new tokens, cache or None) -> (logits (V,) after the last of them, cache): the only part that is a framework's."""


def parser(twin: str, devices: tuple[str, ...]) -> Parser:
    """The command line of `python -m <twin>.generate`."""
    made = Parser(prog=f"python -m {twin}.generate", description="Continues a prompt, streamed to the terminal.")
    made.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="a run folder or a step_NNNNNN folder")
    made.add_argument("--prompt", required=True, metavar="TEXT", help="beginning of a row; may be empty")
    made.add_argument("--max-tokens", type=int, default=100, metavar="N", help="most tokens to add; a row may end earlier")
    made.add_argument("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest token")
    made.add_argument("--top-k", type=int, metavar="N", help="choose among the N likeliest tokens")
    made.add_argument("--top-p", type=float, metavar="X", help="choose among the likeliest tokens that hold this probability")
    made.add_argument("--seed", type=int, default=1337, metavar="N", help="the same seed gives the same text in both twins")
    made.add_argument("--device", choices=devices, default="auto", help="where to compute")
    return made


def load_source(args: argparse.Namespace) -> tuple[Checkpoint, Tokenizer, Sampling]:
    """The checkpoint, its tokenizer and the sampling settings. Raises InputError before any work."""
    if args.max_tokens < 1:
        raise InputError(f"--max-tokens {args.max_tokens} is below 1: give the number of tokens to add")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed} is negative: give 0 or more")
    try:
        args.prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError("--prompt is not valid UTF-8: check the terminal's encoding") from error
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    loaded = checkpoint.load(checkpoint.find(args.checkpoint, "--checkpoint"), moments=False)
    return loaded, load_tokenizer(loaded.folder / checkpoint.TOKENIZER), sampling


def generate(
    forward: Forward,
    prompt: list[int],
    sampling: Sampling,
    max_tokens: int,
    vocab_size: int,
    block_size: int,
    seed: int,
    end: int = END_OF_TEXT_ID,
) -> Iterator[int]:
    """Token ids after `end`, <|endoftext|>, and `prompt`, until the row ends or `max_tokens`.

    Only the first `vocab_size` logits count: the rows beyond are padding. When the context is full, its newer half is
    read anew, since learned positions cannot slide.
    """
    generator = np.random.default_rng(seed)
    context = [end, *prompt][-block_size:]
    new, cache = context, None
    for _ in range(max_tokens):
        logits, cache = forward(new, cache)
        token = choose(logits[:vocab_size], sampling, generator)
        if token == end:
            return
        yield token
        context.append(token)
        new = [token]
        if len(context) > block_size:
            context = context[-max(1, block_size // 2) :]
            new, cache = context, None


def stream(forward: Forward, tokenizer: Tokenizer, loaded: Checkpoint, sampling: Sampling, args: argparse.Namespace) -> None:
    """Writes prompt and continuation to stdout as they come, and the speed to stderr."""
    prompt = tokenizer.encode(args.prompt, add_special_tokens=False).ids
    decoder = DecodeStream(ids=prompt, skip_special_tokens=True)
    print(args.prompt, end="", flush=True)
    begin, count = time.perf_counter(), 0
    tokens = generate(
        forward, prompt, sampling, args.max_tokens, tokenizer.get_vocab_size(), loaded.model.block_size, args.seed
    )
    for token in tokens:
        print(decoder.step(tokenizer, token) or "", end="", flush=True)
        count += 1
    seconds = time.perf_counter() - begin
    print(flush=True)
    print(f"{count} tokens in {seconds:.2f} s, {count / seconds:.1f} tok/s", file=sys.stderr)
