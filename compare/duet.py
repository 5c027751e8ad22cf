"""Both twins at one prompt, token by token, each with its own clock: what the playground shows."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from compare.sides import Twins
from gpt_core.checkpoint import Checkpoint
from gpt_core.generation import Forward, generate
from gpt_core.sampling import Sampling, probabilities
from gpt_core.tokens import END_OF_TEXT_ID

NEXT_TOKENS = 10
NAMES = ("PyTorch", "MLX")


@dataclass(frozen=True)
class Voice:
    """What one twin has written so far."""

    ids: list[int]
    text: str
    seconds: float
    done: bool

    @property
    def tokens_per_s(self) -> float:
        """Speed, the reading of the prompt included."""
        return len(self.ids) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class NextToken:
    """A token that may come next, as text, and its probability in each twin, in the order of NAMES."""

    text: str
    probabilities: tuple[float, float]


class Duet:
    """Both twins with the same weights."""

    def __init__(self, twins: Twins, loaded: Checkpoint, tokenizer: Tokenizer):
        self._forwards: list[Forward] = [side.forward(loaded.model, loaded.weights) for side in twins.both]
        self._block_size = loaded.model.block_size
        self._tokenizer = tokenizer
        self._used = tokenizer.get_vocab_size()

    def write(self, prompt: str, sampling: Sampling, max_tokens: int, seed: int) -> Iterator[tuple[Voice, Voice]]:
        """Both continuations after every token, in turns; ends when both have ended."""
        read = self._read(prompt)
        sources = [generate(f, read, sampling, max_tokens, self._used, self._block_size, seed) for f in self._forwards]
        voices = [Voice([], "", 0.0, False) for _ in sources]
        while not all(voice.done for voice in voices):
            voices = [voice if voice.done else self._one_more(voice, s) for voice, s in zip(voices, sources, strict=True)]
            yield voices[0], voices[1]

    def next_tokens(self, prompt: str, sampling: Sampling) -> list[NextToken]:
        """The likeliest tokens after the prompt under `sampling`, by PyTorch's order."""
        context = [END_OF_TEXT_ID, *self._read(prompt)][-self._block_size :]
        first, second = (probabilities(forward(context, None)[0][: self._used], sampling) for forward in self._forwards)
        likeliest = [int(i) for i in np.argsort(-first, kind="stable")[:NEXT_TOKENS] if first[i] > 0]
        return [NextToken(self._shown(i), (float(first[i]), float(second[i]))) for i in likeliest]

    def _read(self, prompt: str) -> list[int]:
        return self._tokenizer.encode(prompt, add_special_tokens=False).ids

    def _one_more(self, voice: Voice, source: Iterator[int]) -> Voice:
        begin = time.perf_counter()
        token = next(source, None)
        seconds = voice.seconds + time.perf_counter() - begin
        if token is None:
            return Voice(voice.ids, voice.text, seconds, True)
        ids = [*voice.ids, token]
        return Voice(ids, self._tokenizer.decode(ids), seconds, False)

    def _shown(self, token: int) -> str:
        """A token as text; a leading space is shown as one, a part of a letter by its bytes."""
        if token == END_OF_TEXT_ID:
            return "(end of row)"
        text: str = self._tokenizer.decode([token])
        name: Any = self._tokenizer.id_to_token(token)
        return f"part of a letter: {name}" if "\ufffd" in text else text.replace(" ", "␣").replace("\n", "⏎")
