"""n-grams with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998), over the tokens that a model sees.

A row is <|endoftext|>, its tokens, <|endoftext|>; no n-gram crosses rows. As context id 0 is a row's beginning, as target its
end. Two details are KenLM's (Heafield et al. 2013): an n-gram that begins a row keeps its count at every length, since
nothing can stand before it, and the shortest ones are mixed with the uniform distribution, so that every token has a chance.
"""

from dataclasses import dataclass

import numpy as np

from gpt_core.tokens import END_OF_TEXT_ID

FALLBACK_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])
"""For counts of 0, 1, 2, and 3 or more, where there is too little text to estimate them: those of KenLM."""


@dataclass(frozen=True)
class Level:
    """The n-grams of one length, numbered as their keys rise; a context is an n-gram of the level below.

    p(w | context) = share(context w) + weight(context) p(w | context without its first token); arrays are float64.
    """

    keys: np.ndarray
    """Number of the context times the vocabulary, plus the token: (n-grams,) int64, rising."""
    share: np.ndarray
    """(count - discount) / sum of the counts in the context, (n-grams,)."""
    weight: np.ndarray
    """What the discounts leave to the shorter context, (contexts,); 1 for a context that nothing ever followed."""


@dataclass(frozen=True)
class KneserNey:
    """A trained model: levels of one token, two tokens, ..."""

    vocab_size: int
    levels: tuple[Level, ...]

    def row_nats(self, tokens: np.ndarray) -> np.ndarray:
        """-ln p of each row and its end given its beginning, (rows,) float64; `tokens` (n,) as shards have them."""
        return np.bincount(np.cumsum(tokens == END_OF_TEXT_ID) - 1, weights=self.token_nats(tokens))

    def token_nats(self, tokens: np.ndarray) -> np.ndarray:
        """-ln p of each target, (n,) float64: as many as `tokens` (n,), of each row its tokens and then its end."""
        tokens, place = _with_ends(tokens)
        p = np.full(len(tokens), 1 / self.vocab_size)
        known = np.zeros(len(tokens), dtype=np.int64)  # number of the n-gram that ends here: -1 if training had none
        for length, level in enumerate(self.levels, start=1):
            context = _contexts(known, place, length)
            there = context >= 0
            keys = context[there] * self.vocab_size + tokens[there]
            at = np.minimum(np.searchsorted(level.keys, keys), len(level.keys) - 1)
            known = np.full(len(tokens), -1)
            known[there] = np.where(level.keys[at] == keys, at, -1)
            p[there] *= level.weight[context[there]]
            p[known >= 0] += level.share[known[known >= 0]]
        return -np.log(p[place > 0])


def train(tokens: np.ndarray, vocab_size: int, order: int) -> KneserNey:
    """A model of `order`-grams, order 1 being single tokens, of `tokens` (n,) as shards have them."""
    tokens, place = _with_ends(tokens)
    grams = np.zeros(len(tokens), dtype=np.int64)  # number of the n-gram that ends here: -1 where its row is too short
    keys, counts, numbers = [], [], [grams]
    for length in range(1, order + 1):
        context = _contexts(grams, place, length)
        there = context >= 0
        found, number = np.unique(context[there] * vocab_size + tokens[there], return_inverse=True)
        grams = np.full(len(tokens), -1)
        grams[there] = number
        keys.append(found)
        counts.append(np.bincount(grams[there & (place > 0)], minlength=len(found)))  # a row's beginning is no target
        numbers.append(grams)
    for length in range(1, order):
        first = place == length - 1
        before = _left_neighbours(numbers[length], numbers[length + 1], len(keys[length]), len(keys[length - 1]))
        inner = np.ones(len(before), dtype=bool)
        inner[numbers[length][first & (place > 0)]] = False
        counts[length - 1] = np.where(inner, before, counts[length - 1])
    contexts = [1, *map(len, keys)]
    return KneserNey(vocab_size, tuple(_level(k, c, n, vocab_size) for k, c, n in zip(keys, counts, contexts, strict=False)))


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken off counts of 0, 1, 2, and 3 or more (Chen and Goodman 1998, equation 26), or the fallback."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].tolist()
    if not (n1 and n2 and n3 and n4):
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    found = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return found if (found[1:] > 0).all() else FALLBACK_DISCOUNTS  # at 0 nothing would be left for what was never seen


def _level(keys: np.ndarray, counts: np.ndarray, contexts: int, vocab_size: int) -> Level:
    context, off = keys // vocab_size, discounts(counts)[np.minimum(counts, 3)]
    total, left = (np.bincount(context, weights=part, minlength=contexts) for part in (counts, off))
    followed = total > 0
    weight = np.divide(left, total, out=np.ones(contexts), where=followed)
    share = np.divide(counts - off, total[context], out=np.zeros(len(keys)), where=followed[context])
    return Level(keys, share, weight)


def _with_ends(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens with an <|endoftext|> behind every row too, (n + rows,) int64, and the place of each in its row, from 0."""
    starts = np.flatnonzero(tokens == END_OF_TEXT_ID)
    tokens = np.append(np.insert(tokens.astype(np.int64), starts[1:], END_OF_TEXT_ID), END_OF_TEXT_ID)
    starts += np.arange(len(starts))
    return tokens, np.arange(len(tokens)) - np.repeat(starts, np.diff(starts, append=len(tokens)))


def _contexts(grams: np.ndarray, place: np.ndarray, length: int) -> np.ndarray:
    """Number of the context before each token, as an n-gram one shorter than `length`; -1 where a row is too short."""
    return grams if length == 1 else np.where(place >= length - 1, np.roll(grams, 1), -1)


def _left_neighbours(grams: np.ndarray, longer: np.ndarray, longer_count: int, count: int) -> np.ndarray:
    """How many different tokens stand before each n-gram, (count,): the n-grams one longer that end with it."""
    end = np.empty(longer_count, dtype=np.int64)
    end[longer[longer >= 0]] = grams[longer >= 0]
    return np.bincount(end, minlength=count)
