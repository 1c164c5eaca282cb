"""GET /v1/models: the names of the pool's models, and what is meant by each."""

from typing import Any

from t2i_api.pool import Pool
from t2i_gateway.model_names import ModelNames

OWNER = "t2i-serving"


def model_names(pool: Pool) -> list[str]:
    """What clients may call the model; the pool's name first."""
    return list(ModelNames.of(pool).demands)


def check_model(name: str | None, pool: Pool) -> None:
    """Raises:
    ModelUnknown: the pool serves no model of this name.
    """
    if name is not None:
        ModelNames.of(pool).check(name)


def demanded_model(name: str | None, pool: Pool) -> str:
    """What a request says on the wire of the pool; empty: whichever the pool chooses."""
    return "" if name is None or ModelNames.of(pool).demands[name] is None else name


def model_card(name: str, created: int, pool: Pool) -> dict[str, Any]:
    """One model in OpenAI's shape. `created`: Unix time, here of the gateway's start.

    Where the pool has several, `t2i` says what the name means: any of some models, or one and its full schedule.
    """
    card = {"id": name, "object": "model", "created": created, "owned_by": OWNER}
    if not pool.spec.models:
        return card
    names = ModelNames.of(pool)
    model = names.demands[name]
    if model is None:
        return {**card, "t2i": {"any_of": [names.own, *pool.spec.models]}}
    part = pool.spec.model_called(model)
    told = {"num_inference_steps": part.num_inference_steps, "guidance_scale": part.guidance_scale}
    return {**card, "t2i": {"model": names.name_of(model), "is_reference": not model, **told}}
