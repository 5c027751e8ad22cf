"""The curves of a run's plots, kept small however long the run: their memory and the time to draw them are bounded."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpt_core.metrics import Record

LIMIT = 2000
"""Most points of a curve; a plot is 960 pixels wide, and its memory grows with the points."""
WEIGHT = 0.05


@dataclass
class Series:
    """Points (step, *values) in groups of `stride` steps; where `peaks`, each group keeps its largest, else its first."""

    peaks: bool = False
    stride: int = 1
    points: list[tuple[float, ...]] = field(default_factory=list)
    _seen: int = 0

    def add(self, *point: float) -> None:
        """Adds a point; a full series keeps one of every two."""
        if self._seen % self.stride == 0:
            if len(self.points) == LIMIT:
                pairs = zip(self.points[::2], self.points[1::2], strict=True)
                self.points = [self._chosen(*pair) for pair in pairs]
                self.stride *= 2
            self.points.append(point)
        else:
            self.points[-1] = self._chosen(self.points[-1], point)
        self._seen += 1

    def columns(self) -> list[list[float]]:
        """The points as one list for the steps and one for each value."""
        return [list(column) for column in zip(*self.points, strict=True)]

    def _chosen(self, first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
        return second if self.peaks and second[1] > first[1] else first


class RunningMean:
    """Exponential running mean, started without bias (Adam's correction; Kingma and Ba 2015, section 3)."""

    def __init__(self, weight: float = WEIGHT):
        self._weight, self._mean, self._decay = weight, 0.0, 1.0

    def add(self, value: float) -> float:
        """The mean with one more value."""
        self._mean = (1 - self._weight) * self._mean + self._weight * value
        self._decay *= 1 - self._weight
        return self._mean / (1 - self._decay)


def running_mean(values: Iterable[float], weight: float = WEIGHT) -> list[float]:
    """The running mean after each value."""
    mean = RunningMean(weight)
    return [mean.add(value) for value in values]


class Curves:
    """Loss and its running mean, validation loss, and gradient norm before and after clipping."""

    def __init__(self, records: Iterable[Record] = ()):
        self.loss, self.validation, self.norm = Series(), Series(), Series(peaks=True)
        self._mean = RunningMean()
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Takes a record's numbers; what is none in a file that others wrote is left out."""
        step, loss = record["step"], record["loss"]
        norms = record["grad_norm"], record["clipped_grad_norm"]
        if _are_numbers(loss):
            self.loss.add(step, loss, self._mean.add(loss))
        if _are_numbers(*norms):
            self.norm.add(step, *norms)
        if _are_numbers(record.get("val_loss")):
            self.validation.add(step, record["val_loss"])


def _are_numbers(*values: object) -> bool:
    return all(isinstance(value, float) and math.isfinite(value) for value in values)
