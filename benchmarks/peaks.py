"""The matmul peak of a framework, device and dtype, measured on the spot."""

from collections.abc import Callable

from benchmarks.timing import Clock, seconds

SIZES = (512, 1024, 2048, 4096, 8192)
LONG_ENOUGH_S = 0.1
"""A product that takes this long hides every fixed cost: larger ones are not tried."""
REPEATS = 4

Product = Callable[[int], Callable[[], None]]
"""n -> a function that multiplies two n x n matrices and waits for the result."""


def measured_tflops(product: Product, clock: Clock, sizes: tuple[int, ...] = SIZES) -> float:
    """The best rate over `sizes`, 1e12 FLOP/s, at 2 n^3 FLOP a product; the fastest of REPEATS, since the first may compile."""
    best = 0.0
    for n in sizes:
        multiply = product(n)
        taken = min(seconds(multiply, clock) for _ in range(REPEATS))
        best = max(best, 2 * n**3 / taken / 1e12)
        if taken > LONG_ENOUGH_S:
            break
    return best
