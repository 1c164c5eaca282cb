"""The profile as a file: the JSON that `t2ictl profile` writes, every number checked when it is read."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from t2i_policy.band_loss import parse_band, render_bands
from t2i_policy.image_size import ImageSize, SizeCost
from t2i_policy.judge_record import parse_judge, render_judge
from t2i_policy.level import parse_level, render_level
from t2i_policy.measured_with import parse_measured_with, render_measured_with
from t2i_policy.model_section import ModelSection, check_schedule, parse_sections, render_section
from t2i_policy.predictor import Predictor
from t2i_policy.predictor_section import parse_predictor, render_predictor
from t2i_policy.profile import JudgedLosses, LevelCost, LevelProfile, ProfileError, VariantLosses

SCHEMA = "t2iserving.dev/profile/v1"


def parse_profile(text: str) -> LevelProfile:
    """Read the JSON that `t2ictl profile` wrote.

    Raises:
        ProfileError: not JSON, another schema, or a field missing, of the wrong kind or out of range.
    """
    try:
        document: Mapping[str, Any] = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ProfileError(f"schema: expected {SCHEMA}, got {document['schema']!r}; run t2ictl profile again")
        profile = LevelProfile(
            model_digest=str(document["modelDigest"]),
            device=str(document["device"]),
            base_steps=int(document["baseSteps"]),
            step_s=tuple(float(value) for value in document["stepSeconds"]),
            fixed_s=float(document["fixedSeconds"]),
            losses=tuple(parse_band(item) for item in document["losses"]),
            predictor=_parse_predictor(document.get("predictor")),
            embedder_digest=str(document.get("embedderDigest", "")),
            sizes=parse_sizes(document.get("sizes", ())),
            costs=parse_costs(document.get("levelCosts", ())),
            judge=parse_judge(document["judge"]) if "judge" in document else None,
            others=tuple(_parse_judged(item) for item in document.get("otherJudges", ())),
            variants=tuple(_parse_variant(item) for item in document.get("variants", ())),
            models=_parse_sections(document.get("models", ())),
            measured_with=parse_measured_with(document),
        )
        _check(profile)
        return profile
    except ProfileError:
        raise
    except RecursionError as error:
        raise ProfileError("profile is not usable: it is nested too deeply; write it with t2ictl profile") from error
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ProfileError(f"profile is not usable: {error!r}; write it with t2ictl profile") from error


def render_profile(profile: LevelProfile) -> str:
    """The JSON text of a profile; `parse_profile` reads it back equal."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "modelDigest": profile.model_digest,
        "device": profile.device,
        "baseSteps": profile.base_steps,
        "stepSeconds": list(profile.step_s),
        "fixedSeconds": profile.fixed_s,
        "losses": render_bands(profile.losses),
        **render_measured_with(profile.measured_with),
    }
    if profile.judge is not None:
        document["judge"] = render_judge(profile.judge)
    if profile.others:
        document["otherJudges"] = [
            {**render_judge(one.judge), "losses": render_bands(one.losses)} for one in profile.others
        ]
    if profile.variants:
        document["variants"] = [
            {"width": one.width, "height": one.height, "adapter": one.adapter, "losses": render_bands(one.losses)}
            for one in profile.variants
        ]
    if profile.models:
        document["models"] = [render_section(one) for one in profile.models]
    if profile.embedder_digest:
        document["embedderDigest"] = profile.embedder_digest
    if profile.sizes:
        document["sizes"] = render_sizes(profile.sizes)
    if profile.costs:
        document["levelCosts"] = render_costs(profile.costs)
    if profile.predictor is not None:
        document["predictor"] = render_predictor(profile.predictor)
    return json.dumps(document, indent=1) + "\n"


def _check(profile: LevelProfile) -> None:
    try:
        check_schedule(profile.base_steps, profile.step_s, profile.fixed_s)
    except ValueError as error:
        raise ProfileError(f"{error}; measure it again with t2ictl profile") from error


def _parse_judged(item: Mapping[str, Any]) -> JudgedLosses:
    return JudgedLosses(parse_judge(item), tuple(parse_band(band) for band in item["losses"]))


def _parse_variant(item: Mapping[str, Any]) -> VariantLosses:
    losses = tuple(parse_band(band) for band in item["losses"])
    return VariantLosses(int(item["width"]), int(item["height"]), str(item["adapter"]), losses)


def _parse_sections(items: Iterable[Mapping[str, Any]]) -> tuple[ModelSection, ...]:
    try:
        return parse_sections(items)
    except (OverflowError, ValueError) as error:
        raise ProfileError(f"models: {error}") from error


def _parse_predictor(section: Mapping[str, Any] | None) -> Predictor | None:
    if section is None:
        return None
    try:
        return parse_predictor(section)
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"predictor: {error}; train it with t2ictl profile, or leave it out") from error


def render_sizes(sizes: Iterable[SizeCost]) -> list[dict[str, Any]]:
    """What steps of other sizes cost, as in the profile's JSON."""
    return [{**size._asdict(), "stepCost": cost} for size, cost in sizes]


def parse_sizes(items: Iterable[Mapping[str, Any]]) -> tuple[SizeCost, ...]:
    return tuple(
        SizeCost(ImageSize(int(item["width"]), int(item["height"])), float(item["stepCost"])) for item in items
    )


def render_costs(costs: Iterable[LevelCost]) -> list[dict[str, Any]]:
    """What levels were measured to cost, as in the profile's JSON."""
    return [{**render_level(level), "cost": round(cost, 4)} for level, cost in costs]


def parse_costs(items: Iterable[Mapping[str, Any]]) -> tuple[LevelCost, ...]:
    return tuple(LevelCost(parse_level(item), float(item["cost"])) for item in items)
