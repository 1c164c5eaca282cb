"""The known eviction policies that ours, `t2i_policy.steps_at_stake`, is measured against."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from t2i_policy.eviction import CachedItem

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class LCBFU:
    """Least computationally beneficial and frequently used (NIRVANA, arXiv 2312.04429): the least hits x K goes first.

    Hits start at 1, so that a new latent competes as if it had been used once.
    """

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:  # noqa: ARG002
        items = chain.from_iterable(prompts)
        return sorted(items, key=lambda item: (item.hits * item.skipped_steps, item.used_s, item.stored_s))


@dataclass(frozen=True, slots=True)
class LRU:
    """A latent that was just stored counts as just used."""

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:  # noqa: ARG002
        return sorted(chain.from_iterable(prompts), key=lambda item: (item.used_s, item.stored_s))


@dataclass(frozen=True, slots=True)
class FIFO:
    """A sliding window; it is strong if sessions are short (MoDM, arXiv 2503.11972)."""

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:  # noqa: ARG002
        return sorted(chain.from_iterable(prompts), key=lambda item: item.stored_s)
