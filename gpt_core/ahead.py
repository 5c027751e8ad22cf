"""The next step's numbers, made by the host while the device computes this step's."""

from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


def nothing() -> None:
    """For a host that has nothing to do meanwhile."""


class Ahead(Generic[Item]):
    """`make(step)` of each step in turn; `prepare` makes the next one before it is asked for.

    No thread: on an H200 that cost a step more than it gained, probably by Python's lock, which queueing work for a device
    needs too (docs/lab-notes.md).
    """

    def __init__(self, make: Callable[[int], Item], steps: range):
        self._make, self._steps = make, steps
        self._ready: list[Item] = []

    def prepare(self) -> None:
        """Makes the next step's item, unless it is made or there is none."""
        if not self._ready and self._steps:
            step, self._steps = self._steps[0], self._steps[1:]
            self._ready.append(self._make(step))

    def next(self) -> Item:
        """The next step's item. Raises IndexError after the last."""
        self.prepare()
        return self._ready.pop()
