"""The profile's `predictor` section: the learned predictor as JSON, every number checked when it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_policy.features import FEATURES
from t2i_policy.level import parse_level, render_level
from t2i_policy.predictor import CurvePoint, LevelPredictor, Predictor, Term


def parse_predictor(document: Mapping[str, Any]) -> Predictor:
    """Read the profile's section.

    Raises:
        ValueError, KeyError, TypeError: a field is missing or of the wrong kind; the message names it.
    """
    return Predictor(tuple(_parse_level(item, f"levels[{at}]") for at, item in enumerate(document["levels"])))


def _parse_level(item: Mapping[str, Any], where: str) -> LevelPredictor:
    try:
        terms = tuple(_parse_term(term) for term in item["terms"])
        curve = tuple(CurvePoint(*_numbers(point, ("similarity", "loss", "margin"))) for point in item["curve"])
        return LevelPredictor(parse_level(item), curve, terms, int(item["samples"]))
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _parse_term(item: Mapping[str, Any]) -> Term:
    feature = str(item["feature"])
    if feature not in FEATURES:
        raise ValueError(f"terms: feature must be one of {', '.join(FEATURES)}, got {feature!r}")
    return Term(feature, *_numbers(item, ("mean", "low", "high", "weight", "margin")))


def _numbers(item: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    values = []
    for name in names:
        value = item[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        values.append(float(value))
    return values


def render_predictor(predictor: Predictor) -> dict[str, Any]:
    """The profile's section; `parse_predictor` reads it back equal."""
    return {
        "levels": [
            {
                **render_level(one.level),
                "samples": one.num_samples,
                "curve": [{"similarity": p.similarity, "loss": p.loss, "margin": p.margin} for p in one.curve],
                "terms": [
                    {
                        "feature": term.feature,
                        "mean": term.mean,
                        "low": term.low,
                        "high": term.high,
                        "weight": term.weight,
                        "margin": term.margin,
                    }
                    for term in one.terms
                ],
            }
            for one in predictor.levels
        ]
    }
