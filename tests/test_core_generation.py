"""The generation loop around a fake forward pass, and the text that is streamed."""

import argparse
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gpt_core import generation
from gpt_core.errors import InputError
from gpt_core.generation import generate
from gpt_core.sampling import Sampling

GREEDY = Sampling(0.0)
V, PADDED = 7, 10


class Fake:
    """A forward pass that wants token `rule(position of the newest token)`, and records what it was given."""

    def __init__(self, rule):
        self.rule, self.calls = rule, []

    def __call__(self, tokens: list[int], cache: Any) -> tuple[np.ndarray, Any]:
        self.calls.append((list(tokens), cache))
        seen = (cache or ()) + tuple(tokens)
        logits = np.zeros(PADDED, dtype=np.float32)
        logits[V:] = 50.0  # padding has the highest logits of all
        logits[self.rule(seen)] += 9.0
        return logits, seen


def run(fake: Fake, prompt: list[int], max_tokens: int = 5, block_size: int = 100, sampling: Sampling = GREEDY) -> list[int]:
    return list(generate(fake, prompt, sampling, max_tokens, V, block_size, seed=1))


def test_the_prompt_goes_in_once_and_then_one_token_at_a_time():
    fake = Fake(lambda seen: 1 + len(seen) % 6)
    assert run(fake, [3, 4]) == [4, 5, 6, 1, 2]
    assert fake.calls[0] == ([0, 3, 4], None)
    for number, (tokens, cache) in enumerate(fake.calls[1:]):
        assert tokens == [[4, 5, 6, 1, 2][number]]
        assert cache == (0, 3, 4, 4, 5, 6, 1, 2)[: 3 + number]


def test_it_stops_at_the_end_of_the_row_and_does_not_say_it():
    fake = Fake(lambda seen: 0 if len(seen) == 4 else 2)
    assert run(fake, [3], max_tokens=50) == [2, 2] and len(fake.calls) == 3
    assert run(Fake(lambda seen: 0), [3]) == []


@pytest.mark.parametrize("count", [1, 2, 17])
def test_max_tokens(count):
    assert run(Fake(lambda seen: 5), [], max_tokens=count) == [5] * count


@pytest.mark.parametrize("block_size", [1, 2, 3, 4, 100])
def test_one_forward_pass_a_token_and_none_after_the_last(block_size):
    """Whether or not the last token fills the context."""
    fake = Fake(lambda seen: 5)
    assert len(run(fake, [], max_tokens=3, block_size=block_size)) == len(fake.calls) == 3


@given(st.integers(0, 2**32), st.sampled_from([Sampling(), Sampling(3.0), Sampling(top_k=9), Sampling(top_p=0.9)]))
def test_padding_never_comes_out(seed, sampling):
    fake = Fake(lambda seen: 1)
    tokens = list(generate(fake, [2], sampling, 20, V, 30, seed))
    assert all(0 < token < V for token in tokens)
    flat = list(generate(fake, [2], sampling, 20, PADDED, 30, seed))  # negative control: counted, padding wins at once
    assert flat[0] >= V


def test_a_full_context_is_read_anew_from_its_newer_half():
    """Context 6: <|endoftext|> and 5 tokens fill it; the next token makes the newest 3 the context."""
    fake = Fake(lambda seen: 1 + seen[-1] % 6)
    assert run(fake, [1, 2], max_tokens=8, block_size=6) == [3, 4, 5, 6, 1, 2, 3, 4]
    assert [tokens for tokens, _ in fake.calls] == [[0, 1, 2], [3], [4], [5], [4, 5, 6], [1], [2], [3]]
    assert [cache is None for _, cache in fake.calls] == [True, False, False, False, True, False, False, False]
    longer = Fake(lambda seen: 1 + seen[-1] % 6)
    run(longer, [1, 2], max_tokens=9, block_size=6)
    assert longer.calls[8] == ([2, 3, 4], None)


@given(st.integers(1, 9), st.lists(st.integers(1, 6), max_size=20), st.integers(1, 30))
def test_the_context_never_overflows_and_never_forgets_more_than_half(block_size, prompt, max_tokens):
    fake = Fake(lambda seen: 1 + seen[-1] % 6)
    text = [0, *prompt, *run(fake, prompt, max_tokens, block_size)]
    assert len(text) == 1 + len(prompt) + max_tokens and len(fake.calls) == max_tokens
    for number, (tokens, cache) in enumerate(fake.calls):
        seen = [*(cache or ()), *tokens]
        assert max(1, block_size // 2) <= len(seen) <= block_size or seen == text[: len(seen)]
        assert text[: 1 + len(prompt) + number][-len(seen) :] == seen  # always the newest tokens, in order


def test_a_long_prompt_keeps_its_end():
    fake = Fake(lambda seen: 4)
    run(fake, [1, 2, 3, 4, 5, 6], max_tokens=1, block_size=4)
    assert fake.calls[0] == ([3, 4, 5, 6], None)


def test_the_seed_decides():
    texts = [list(generate(Fake(lambda seen: 1), [], Sampling(9.0), 40, V, 50, seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def stream(tokenizer: Tokenizer, prompt: str, continuation: str) -> None:
    """`generation.stream` with a model that writes `continuation` and ends the row."""
    wanted = [*tokenizer.encode(continuation, add_special_tokens=False).ids, 0]
    start = 1 + len(tokenizer.encode(prompt, add_special_tokens=False).ids)

    def forward(tokens: list[int], cache: Any) -> tuple[np.ndarray, Any]:
        count = (cache or 0) + len(tokens)
        logits = np.zeros(tokenizer.get_vocab_size() + 5, dtype=np.float32)
        logits[wanted[min(count - start, len(wanted) - 1)]] = 9.0
        return logits, count

    loaded: Any = SimpleNamespace(model=SimpleNamespace(block_size=200))
    args = argparse.Namespace(prompt=prompt, max_tokens=190, seed=1)
    generation.stream(forward, tokenizer, loaded, GREEDY, args)


@pytest.mark.parametrize(("prompt", "continuation"), [("واش راك", " خويا 😂 été"), ("", "لاباس"), ("نتا", "")])
def test_the_streamed_text_is_the_tokens_text(tokenizer, capsys, prompt, continuation):
    """Letters whose bytes lie in two tokens come out whole."""
    stream(tokenizer, prompt, continuation)
    out, err = capsys.readouterr()
    assert out == prompt + continuation + "\n"
    count = len(tokenizer.encode(continuation, add_special_tokens=False).ids)
    assert err.startswith(f"{count} tokens in ") and err.endswith("tok/s\n")


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--max-tokens", "0"], "--max-tokens 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--top-p", "2"], "--top-p 2.0"),
        (["--prompt", "\udcff"], "--prompt"),
        ([], "--checkpoint /nowhere/run does not exist"),
    ],
)
def test_bad_flags_are_named_before_any_work(flags, part):
    parser = generation.parser("mlx_gpt", ("auto", "cpu"))
    args = parser.parse_args(["--checkpoint", "/nowhere/run", "--prompt", "x", *flags])
    with pytest.raises(InputError, match=part):
        generation.load_source(args)
