"""Made-up prompt sessions with a seed: people iterate on a prompt for a while, move on, and sometimes come back.

Several people work at once. Each request of a session repeats the last prompt, changes its ending, changes its subject,
or adds an ending; its length is geometric. A new session takes up one of the person's or somebody else's old prompts
now and then. The words are ours; nothing is taken from a data set, and no policy was chosen by these figures.
"""

from dataclasses import dataclass, replace

import numpy as np

MEDIA = ("an oil painting", "a photo", "a pencil sketch", "a 3 d render", "a watercolor", "concept art", "a poster")
SUBJECTS = (
    "a lighthouse keeper", "two foxes", "an old tram", "a robot gardener", "the queen of owls", "a paper dragon",
    "a chess player", "three astronauts", "a glass violin", "a sleeping giant", "a city of bridges", "a fisherman",
    "a wooden horse", "a street market", "a snow leopard", "an abandoned station", "a clockmaker", "a kite festival",
    "a mountain monastery", "a jazz band", "an iron whale", "a desert caravan", "a tea house", "a cactus in bloom",
    "a racing bicycle", "a library under water", "a masked dancer", "a volcano at sea", "a bowl of ramen", "an old map",
)  # fmt: skip
DOING = (
    "waiting for the rain", "crossing a frozen river", "reading by candle light", "lost in a maze", "at the world fair",
    "hidden in tall grass", "floating above a valley", "in front of a red door", "among lanterns", "in a mirror",
    "on the last day of summer", "under a broken moon", "beside a long table", "at the edge of a forest", "in a storm",
)  # fmt: skip
ENDINGS = (
    "highly detailed", "soft morning light", "wide angle", "muted colors", "intricate", "trending", "sharp focus",
    "dramatic shadows", "film grain", "pastel palette", "very realistic", "isometric view", "golden hour", "8 k",
    "minimalist", "smooth", "rough brush strokes", "backlit", "symmetrical", "deep blue tones", "macro lens", "foggy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PromptIdea:
    """What a session is about at one moment."""

    medium: str
    subject: str
    doing: str
    endings: tuple[str, ...]

    @property
    def text(self) -> str:
        return ", ".join((f"{self.medium} of {self.subject} {self.doing}", *self.endings))


def make_sessions(count: int, seed: int, people: int = 8, length: float = 6.0, comeback: float = 0.15) -> list[str]:
    """`count` prompts of `people` interleaved sessions of `length` requests on average."""
    rng = np.random.default_rng(seed)
    now = [_new_idea(rng) for _ in range(people)]
    past: list[PromptIdea] = []
    said: list[str] = []
    while len(said) < count:
        person = int(rng.integers(people))
        said.append(now[person].text)
        if rng.random() < 1.0 / length:
            past.append(now[person])
            back = rng.random() < comeback
            now[person] = past[int(rng.integers(len(past)))] if back else _new_idea(rng)
        else:
            now[person] = _changed(now[person], rng)
    return said


def _pick(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _new_idea(rng: np.random.Generator) -> PromptIdea:
    endings = tuple(_pick(ENDINGS, rng) for _ in range(int(rng.integers(5))))
    return PromptIdea(_pick(MEDIA, rng), _pick(SUBJECTS, rng), _pick(DOING, rng), endings)


def _changed(idea: PromptIdea, rng: np.random.Generator) -> PromptIdea:
    kind = rng.random()
    if kind < 0.3:
        return idea
    if kind < 0.6 and idea.endings:
        return replace(idea, endings=(*idea.endings[:-1], _pick(ENDINGS, rng)))
    if kind < 0.85:
        return replace(idea, endings=(*idea.endings, _pick(ENDINGS, rng)))
    return replace(idea, subject=_pick(SUBJECTS, rng))
