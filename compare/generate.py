"""Generate: the same prompts and seeds through both twins must give the same text."""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from compare import tolerances
from compare.checks import Check, difference
from compare.prompts import PROMPTS
from compare.sides import Side, Twins
from gpt_core.checkpoint import Arrays
from gpt_core.config import GPTConfig
from gpt_core.generation import generate
from gpt_core.sampling import Sampling
from gpt_core.tokens import END_OF_TEXT_ID

MAX_TOKENS = 70
"""Beyond the context of `tiny`, so that the reading anew of its newer half is compared too."""


class Setting(NamedTuple):
    """A way of choosing tokens. Where rows do not end, every continuation has all MAX_TOKENS."""

    sampling: Sampling
    seed: int
    ends: bool

    def __str__(self) -> str:
        if self.sampling.temperature == 0:
            return "greedy, without end"
        cut = f"top-k {self.sampling.top_k}" if self.sampling.top_k else f"top-p {self.sampling.top_p}"
        return f"temperature {self.sampling.temperature}, {cut}, seed {self.seed}"


SETTINGS = (
    Setting(Sampling(temperature=0.0), 0, ends=False),
    Setting(Sampling(temperature=0.8, top_k=50), 1, ends=True),
    Setting(Sampling(temperature=1.0, top_p=0.9), 2, ends=True),
)
"""Each prompt is continued in each of these ways."""


@dataclass(frozen=True)
class Continuation:
    """What one twin wrote: token ids, text, the logits of every choice, and the time it took."""

    ids: list[int]
    text: str
    logits: np.ndarray
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Speed, the reading of the prompt included."""
        return len(self.ids) / self.seconds


@dataclass(frozen=True)
class Sample:
    """One prompt and way of choosing through both twins."""

    prompt: str
    setting: Setting
    torch: Continuation
    mlx: Continuation

    @property
    def same(self) -> bool:
        """Whether both wrote the same tokens."""
        return self.torch.ids == self.mlx.ids

    @property
    def logits_difference(self) -> float:
        """The worst row of logits, up to the first token that differs."""
        pairs = list(zip(self.torch.ids, self.mlx.ids, strict=False))
        agreed = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        rows = min(agreed + 1, len(self.torch.logits), len(self.mlx.logits))
        return max(difference(self.mlx.logits[i], self.torch.logits[i]) for i in range(rows))


def compare_generation(
    twins: Twins, label: str, config: GPTConfig, weights: Arrays, tokenizer: Tokenizer
) -> tuple[list[Sample], list[Check]]:
    """Every prompt with every setting, and the two checks on them."""
    samples = []
    for prompt in PROMPTS:
        for setting in SETTINGS:
            torch, mlx = (_continue(side, config, weights, tokenizer, prompt, setting) for side in twins.both)
            samples.append(Sample(prompt, setting, torch, mlx))
    section = f"generate, {label}"
    differing = sum(not sample.same for sample in samples)
    logits = max(sample.logits_difference for sample in samples)
    return samples, [
        Check(section, f"texts that differ, of {len(samples)}", differing, 0),
        Check(section, "logits with a cache", logits, tolerances.STEP_LOGITS),
    ]


def _continue(
    side: Side, config: GPTConfig, weights: Arrays, tokenizer: Tokenizer, prompt: str, setting: Setting
) -> Continuation:
    forward, rows = side.forward(config, weights), []

    def recorded(tokens: list[int], cache: Any) -> tuple[np.ndarray, Any]:
        logits, cache = forward(tokens, cache)
        if not setting.ends:
            logits = np.where(np.arange(len(logits)) == END_OF_TEXT_ID, logits.min(), logits)
        rows.append(logits)
        return logits, cache

    read = tokenizer.encode(prompt, add_special_tokens=False).ids
    used = tokenizer.get_vocab_size()
    begin = time.perf_counter()
    ids = list(generate(recorded, read, setting.sampling, MAX_TOKENS, used, config.block_size, setting.seed))
    seconds = time.perf_counter() - begin
    return Continuation(ids, tokenizer.decode(ids), np.stack(rows)[:, :used], seconds)
