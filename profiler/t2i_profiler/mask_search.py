"""Which steps to compute, if only so many may be: a local search over sets of steps. Pure.

BudCache (arXiv 2606.13496) fixes the number of calls and searches the set offline. Here the first two steps are always
computed, as a forecast extrapolates two outputs. The search begins with sets at even and at growing distances. It then
moves single steps of the best set by up to two places, until no such move was better. It draws nothing itself: whoever
asks measures the sets of `next_masks` and asks again. Equal measurements lead to equal sets.
"""

from collections.abc import Iterator, Mapping

from t2i_policy.level import COMPUTED_FIRST, Level

Mask = tuple[int, ...]
MAX_MASKS = 64  # measured in one search
FARTHEST_MOVE = 2


def next_masks(measured: Mapping[Mask, float], budget: int, num_steps: int) -> tuple[Mask, ...]:
    """Sets to measure next; `measured` holds mean losses. Empty: the search is over."""
    if not measured:
        return first_masks(budget, num_steps)
    left = max(0, MAX_MASKS - len(measured))
    return tuple(mask for mask in _moves(best_mask(measured), num_steps) if mask not in measured)[:left]


def best_mask(measured: Mapping[Mask, float]) -> Mask:
    """The set that loses least; of equal ones the first in order."""
    return min(measured, key=lambda mask: (measured[mask], mask))


def first_masks(budget: int, num_steps: int) -> tuple[Mask, ...]:
    """As `forecast` computes them where it computes as many; else even. Both up to the end, and with a free end."""
    return tuple(dict.fromkeys([*even_masks(budget, num_steps), _spread(budget, num_steps, 1.5, 0.75)]))


def even_masks(budget: int, num_steps: int) -> tuple[Mask, ...]:
    """Without a search: what `forecast` computes if it computes as many, and the rest at even distances."""
    strides = (Level(0, num_steps, forecast=stride) for stride in range(2, 9))
    alike = [mask_of(level) for level in strides if level.cost == budget]
    return (*alike, _spread(budget, num_steps, 1.0, 1.0), _spread(budget, num_steps, 1.0, 0.75))


def mask_of(level: Level) -> Mask:
    """The steps that a level computes."""
    first = level.skipped_steps
    return tuple(step for step in range(first, level.num_inference_steps) if level.computes(step, first))


def to_level(mask: Mask, num_steps: int) -> Level:
    """The level that computes these steps; by `forecast` where that says it."""
    strides = (Level(0, num_steps, forecast=stride) for stride in range(2, 9))
    named = Level(0, num_steps, computed_steps=mask)
    return next((level for level in strides if mask_of(level) == mask), named)


def _spread(budget: int, num_steps: int, power: float, end: float) -> Mask:
    """The first two, and the others at distances that grow with `power`, up to the share `end` of the schedule."""
    others = budget - COMPUTED_FIRST
    left = end * (num_steps - COMPUTED_FIRST)
    taken = [*range(COMPUTED_FIRST)]
    for number in range(others):
        wanted = COMPUTED_FIRST - 1 + round(left * ((number + 1) / others) ** power)
        highest = num_steps - (others - number)  # leaves room for those that follow
        taken.append(min(max(wanted, taken[-1] + 1), highest))
    return tuple(taken)


def _moves(mask: Mask, num_steps: int) -> Iterator[Mask]:
    """Near moves first."""
    for distance in range(1, FARTHEST_MOVE + 1):
        for step in mask[COMPUTED_FIRST:]:
            for to in (step - distance, step + distance):
                if COMPUTED_FIRST <= to < num_steps and to not in mask:
                    yield tuple(sorted({*mask, to} - {step}))
