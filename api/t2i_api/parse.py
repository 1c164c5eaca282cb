"""From text or a mapping to the checked pool: types first, then the rules that span fields."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from t2i_api.audits import JUDGE_IN_WORDS, JUDGE_PATTERN
from t2i_api.names import API_VERSION, KIND
from t2i_api.pool import Pool
from t2i_api.rules import LIST_KEYS, RULES

#: Patterns that nobody can read, in words.
PATTERNS_IN_WORDS = {JUDGE_PATTERN: JUDGE_IN_WORDS}


class PoolError(ValueError):
    """Raised when a pool document is not valid; the message names each field and what it should be."""


def parse_pool(text: str) -> Pool:
    """Parse one YAML document.

    Raises:
        PoolError: not YAML, or see `read_pool`.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PoolError(f"the pool file is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise PoolError(f"the pool file must be one mapping with apiVersion: {API_VERSION} and kind: {KIND}")
    return read_pool(document)


def read_pool(document: Mapping[str, Any]) -> Pool:
    """Parse a document that is mappings and lists already, e.g. from the API server; its `status` is left aside.

    Raises:
        PoolError: fields missing, unknown or out of range, or a rule is broken; one line for each.
    """
    wanted = {name: value for name, value in document.items() if name != "status"}
    try:
        pool = Pool.model_validate(wanted, by_alias=True, by_name=False)
    except ValidationError as error:
        raise PoolError("\n".join(_describe(item) for item in _causes(error))) from error
    complaints = [*_broken_rules(pool), *_repeated_items(pool)]
    if complaints:
        raise PoolError("\n".join(complaints))
    return pool


def _causes(error: ValidationError) -> list[Any]:
    """Without lists that are too short only because an item of theirs is wrong: that one is told."""
    items = error.errors()
    above = {item["loc"][:depth] for item in items for depth in range(len(item["loc"]))}
    return [item for item in items if item["type"] != "too_short" or item["loc"] not in above]


def _describe(item: Any) -> str:
    field = ".".join(str(part) for part in item["loc"]) or "document"
    wanted = PATTERNS_IN_WORDS.get(item.get("ctx", {}).get("pattern"), item["msg"])
    return f"{field}: {wanted} (got {item.get('input')!r:.80})"


def _broken_rules(pool: Pool) -> Iterator[str]:
    for path, rules in RULES.items():
        for at in _find(pool, path):
            for rule in rules:
                if rule.holds is not None and not rule.holds(at.value):
                    told = rule.complaints(at.value)
                    yield from (f"{at.place}{field}: {message}".lstrip(".: ") for field, message in told)


def _repeated_items(pool: Pool) -> Iterator[str]:
    for path, keys in LIST_KEYS.items():
        for at in _find(pool, path) if path.startswith("spec.") else ():
            names = [getattr(item, to_snake(*keys)) if keys else item for item in at.value]
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                list_name = path.rpartition(".")[2]
                yield f"{at.place}: {list_name} must be unique, but {repeated[0]!r} is there more than once: remove one"


@dataclass(frozen=True, slots=True)
class _Found:
    """A part of the document, and where it is: `spec.workerGroups.0.template`."""

    place: str
    value: Any


def _find(value: Any, path: str, place: str = "") -> Iterator[_Found]:
    """What is at a path of the rules."""
    if not path:
        yield _Found(place, value)
        return
    step, _, rest = path.partition(".")
    name = step.removesuffix("[]")
    child, place = getattr(value, to_snake(name)), f"{place}.{name}".lstrip(".")
    if child is None:
        return  # it was left out, so no rule looks into it
    if name == step:
        yield from _find(child, rest, place)
        return
    for index, item in enumerate(child):
        yield from _find(item, rest, f"{place}.{index}")
