"""The samples file beside a profile: one measured prompt a line, so that bands and predictor can be fitted anew.

The first line says what was measured and how fast it ran. Every other line is one asked prompt with its nearest kept
prompt and its scores, one a seed. It says how far apart its images of different seeds are. Lines with `twin` are
prompts that started from the latents of their twin. It holds prompts in clear, which the profile never does: keep it as
you keep them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from t2i_api.names import GROUP
from t2i_policy.distinguishing_words import words_agree
from t2i_policy.image_size import SizeCost
from t2i_policy.judge_record import JudgeRecord, parse_judge, render_judge
from t2i_policy.level import Level, parse_level, render_level
from t2i_policy.measured_with import UNKNOWN, MeasuredWith, parse_measured_with, render_measured_with
from t2i_policy.profile import LevelCost
from t2i_policy.profile_document import parse_costs, parse_sizes, render_costs, render_sizes
from t2i_profiler.bands import Scored
from t2i_profiler.errors import SamplesInvalid

SCHEMA = f"{GROUP}/profile-samples/v1"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured, with which embedder, and who judged: as in `LevelProfile`."""

    model_digest: str
    device: str
    base_steps: int
    step_s: tuple[float, ...]
    fixed_s: float
    judge: JudgeRecord
    embedder_digest: str = ""
    sizes: tuple[SizeCost, ...] = ()
    costs: tuple[LevelCost, ...] = ()
    measured_with: MeasuredWith = UNKNOWN


@dataclass(frozen=True, slots=True)
class PromptScores:
    """One asked prompt. Qualities in 0..1, one a seed: `exact` and every level's pair up by position.

    `exact_spread` and `spreads`: mean distance in 0..1 between images of two seeds; 0 and empty with one seed.
    """

    prompt: str
    nearest: str
    similarity: float
    exact: tuple[float, ...]
    by_level: Mapping[Level, tuple[float, ...]]
    exact_spread: float = 0.0
    spreads: Mapping[Level, float] = field(default_factory=dict)

    def scored(self) -> Scored:
        """Its scores as means over the seeds."""
        means = {level: fmean(scores) for level, scores in self.by_level.items()}
        wins = {level: self._wins(scores) for level, scores in self.by_level.items()}
        agree = words_agree(self.prompt, self.nearest)
        return Scored(self.similarity, fmean(self.exact), means, self.exact_spread, self.spreads, wins, agree)

    def _wins(self, scores: tuple[float, ...]) -> float:
        return fmean((one > exact) + (one == exact) / 2 for one, exact in zip(scores, self.exact, strict=True))


@dataclass(frozen=True, slots=True)
class TwinScores:
    """A prompt from the latents of its twin (`scores.nearest`), at the levels that need a latent."""

    kind: str
    scores: PromptScores


@dataclass(frozen=True, slots=True)
class Measurement:
    """A whole samples file. Every prompt has scores at the same levels, every twin at those of them with a latent."""

    facts: Facts
    prompts: tuple[PromptScores, ...]
    twins: tuple[TwinScores, ...] = ()

    @property
    def levels(self) -> tuple[Level, ...]:
        """The measured levels, the exact one left out, by falling cost."""
        found = self.prompts[0].by_level if self.prompts else ()
        return tuple(sorted(found, key=lambda level: (-level.cost, level.skipped_steps)))


def write_samples(measurement: Measurement, path: Path) -> None:
    """Write the file; `read_samples` gives the measurement back."""
    facts = measurement.facts
    head = {
        "schema": SCHEMA,
        "modelDigest": facts.model_digest,
        "device": facts.device,
        "baseSteps": facts.base_steps,
        "stepSeconds": list(facts.step_s),
        "fixedSeconds": facts.fixed_s,
        "judge": render_judge(facts.judge),
        "embedderDigest": facts.embedder_digest,
        "sizes": render_sizes(facts.sizes),
        "levelCosts": render_costs(facts.costs),
        **render_measured_with(facts.measured_with),
    }
    twins = ({"twin": one.kind, **prompt_line(one.scores)} for one in measurement.twins)
    lines = [head, *(prompt_line(one) for one in measurement.prompts), *twins]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def prompt_line(one: PromptScores) -> dict[str, Any]:
    """As in the file; `read_prompt` gives it back."""
    return {
        "prompt": one.prompt,
        "nearest": one.nearest,
        "similarity": round(one.similarity, 6),
        "exact": [round(score, 6) for score in one.exact],
        **({"exactSpread": round(one.exact_spread, 6)} if one.spreads else {}),
        "levels": [
            {
                **render_level(level),
                "scores": [round(score, 6) for score in scores],
                **({"spread": round(one.spreads[level], 6)} if level in one.spreads else {}),
            }
            for level, scores in one.by_level.items()
        ],
    }


def read_samples(path: Path) -> Measurement:
    """Read a samples file.

    Raises:
        SamplesInvalid: not readable, or a line is not what `t2ictl profile` writes; names the line and the field.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SamplesInvalid(f"--from-samples cannot be read: {error}") from error
    if len(lines) < 2:
        raise SamplesInvalid("--from-samples holds no samples; t2ictl profile --samples writes them")
    try:
        facts = _read_facts(json.loads(lines[0]))
    except (KeyError, TypeError, ValueError) as error:
        raise SamplesInvalid(f"--from-samples, line 1: {_say(error)}") from error
    prompts: list[PromptScores] = []
    twins: list[TwinScores] = []
    for number, line in enumerate(lines[1:], 2):
        try:
            found = json.loads(line)
            one = read_prompt(found)
            kind = found.get("twin")
            if (prompts or kind) and one.by_level.keys() != _levels_of(prompts, kind is not None):
                raise ValueError("levels: not those of the lines before")
        except (KeyError, TypeError, ValueError) as error:
            raise SamplesInvalid(f"--from-samples, line {number}: {_say(error)}") from error
        if kind is None:
            prompts.append(one)
        else:
            twins.append(TwinScores(str(kind), one))
    return Measurement(facts, tuple(prompts), tuple(twins))


def _levels_of(prompts: list[PromptScores], with_latent: bool) -> set[Level]:
    found = prompts[0].by_level if prompts else ()
    return {level for level in found if level.needs_latent or not with_latent}


def _read_facts(head: Mapping[str, Any]) -> Facts:
    if head["schema"] != SCHEMA:
        raise ValueError(f"schema: expected {SCHEMA}, got {head['schema']!r}")
    return Facts(
        model_digest=str(head["modelDigest"]),
        device=str(head["device"]),
        base_steps=int(head["baseSteps"]),
        step_s=tuple(float(value) for value in head["stepSeconds"]),
        fixed_s=float(head["fixedSeconds"]),
        judge=_read_judge(head["judge"]),
        embedder_digest=str(head.get("embedderDigest", "")),
        sizes=parse_sizes(head.get("sizes", ())),
        costs=parse_costs(head.get("levelCosts", ())),
        measured_with=parse_measured_with(head),
    )


def _read_judge(section: Any) -> JudgeRecord:
    """Files of before name the judge and say no more."""
    return JudgeRecord(section, "", "") if isinstance(section, str) else parse_judge(section)


def read_prompt(line: Mapping[str, Any]) -> PromptScores:
    """Raises:
    KeyError, TypeError, ValueError: not what `prompt_line` writes.
    """
    exact = tuple(float(score) for score in line["exact"])
    by_level = {parse_level(item): tuple(float(s) for s in item["scores"]) for item in line["levels"]}
    spreads = {parse_level(item): float(item["spread"]) for item in line["levels"] if "spread" in item}
    similarity = float(line["similarity"])
    if not exact or any(len(scores) != len(exact) for scores in by_level.values()):
        raise ValueError("scores: every level needs one for each exact score, and at least one")
    if not all(0 <= score <= 1 for scores in (exact, *by_level.values()) for score in scores):
        raise ValueError("scores: must be from 0 to 1")
    if not -1.001 <= similarity <= 1.001:
        raise ValueError(f"similarity: must be from -1 to 1, got {similarity}")
    if spreads and spreads.keys() != by_level.keys():
        raise ValueError("spread: every level needs one, or none")
    spread = float(line["exactSpread"]) if spreads else 0.0
    return PromptScores(str(line["prompt"]), str(line["nearest"]), similarity, exact, by_level, spread, spreads)


def _say(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
