"""Image sizes, and what a denoising step of each costs.

The unit of all work is one step of an image of the pool's default size. A step of another size costs `step_cost` of
those, which the workers measure: of the sizes that a pool lists, and of some of each range. Between measured sizes the
cost is linear in the pixels, beyond them it is proportional to the pixels.

A request is admitted, queued, priced and planned for as steps * step_cost. In a batch it takes `step_cost` places.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class ImageSize(NamedTuple):
    """In pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class SizeCost(NamedTuple):
    """What one denoising step of a measured size costs, in steps of the default size."""

    size: ImageSize
    step_cost: float


def counted_steps(steps: float, step_cost: float) -> int:
    """How many steps of the default size so many steps count as, at least one."""
    return max(1, round(steps * step_cost)) if steps else 0


def step_cost_of(size: ImageSize, default: ImageSize, measured: Iterable[SizeCost]) -> float:
    """What a step of `size` costs; 1.0 at the default size. Sizes of equal pixels count as their dearest."""
    if size == default:
        return 1.0
    known = {default.pixels: 1.0}
    for one in measured:
        if one.size == size:
            return one.step_cost
        known[one.size.pixels] = max(one.step_cost, known.get(one.size.pixels, 0.0))
    points = sorted(known.items())
    if size.pixels <= points[0][0]:
        return points[0][1] * size.pixels / points[0][0]
    for (less, low), (more, high) in pairwise(points):
        if size.pixels <= more:
            return low + (high - low) * (size.pixels - less) / (more - less)
    return points[-1][1] * size.pixels / points[-1][0]
