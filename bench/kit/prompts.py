"""Prompts as vectors: a user's file, or made-up sessions in a trial without one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.kit.made_up_sessions import make_sessions
from bench.kit.output import say
from t2i_simulator.embedding import SentenceEncoder, embed
from t2i_simulator.similarity import Vectors
from t2i_simulator.traces import number_prompts, read_prompts

TRIAL_PROMPTS, SEED = 400, 7


@dataclass(frozen=True, slots=True)
class EmbeddedPrompts:
    """Different prompts as vectors [n, d], and which of them each line is."""

    lines: Sequence[str]
    vectors: Vectors
    of_line: Sequence[int]

    @property
    def in_order(self) -> Vectors:
        rows: Vectors = self.vectors[np.asarray(self.of_line)]
        return rows


def prompt_lines(file: Path | None) -> list[str]:
    """The file's lines; made-up ones without a file."""
    return make_sessions(TRIAL_PROMPTS, SEED) if file is None else list(read_prompts(file))


def embed_prompts(lines: Sequence[str]) -> EmbeddedPrompts:
    unique, of_line = number_prompts(lines)
    say(f"embedding {len(unique)} different prompts")
    return EmbeddedPrompts(lines, embed(SentenceEncoder(), unique), of_line)
