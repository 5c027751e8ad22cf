"""Clocks and spreads: everything that turns work into seconds, without a framework."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Clock = Callable[[], float]
"""Seconds from any origin, as time.perf_counter."""


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some trials, in one unit."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Spread":
        """The same in another unit; `factor` > 0."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def rate(self, amount: float) -> "Spread":
        """`amount` a second, where this is in seconds: the lowest rate is that of the longest trial."""
        return Spread(amount / self.median, amount / self.high, amount / self.low)


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one trial."""
    return Spread(statistics.median(values), min(values), max(values))


def seconds(work: Callable[[], object], clock: Clock) -> float:
    """How long `work` takes; it must wait for its device before it returns."""
    begin = clock()
    work()
    return clock() - begin


def time_tokens(tokens: Iterator[int], clock: Clock) -> tuple[float, float, int]:
    """(seconds to the first token, seconds for the others, tokens in all) of a generation that starts now."""
    begin = clock()
    next(tokens)
    first = clock()
    count = 1 + sum(1 for _ in tokens)
    return first - begin, clock() - first, count


def rounds(workers: int, trials: int) -> list[list[int]]:
    """The order in which workers are asked, round by round: all once a round, each round starting one further.

    So noise that lasts longer than a trial hits all alike, and none always follows the same other.
    """
    return [[(trial + place) % workers for place in range(workers)] for trial in range(trials)]
