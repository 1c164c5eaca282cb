"""GET /v1/models: the pool's one model, by the pool's name and by the name of its source."""

from typing import Any

from t2i_api.pool import Pool
from t2i_gateway.doors.errors import HttpRefused

OWNER = "t2i-serving"
_NAMED = ("builtin://", "hf://")  # other sources are paths, which are nobody's business


def model_names(pool: Pool) -> list[str]:
    """What clients may call the model; the pool's name first."""
    source = pool.spec.model.source
    named = [source.removeprefix(scheme).partition("@")[0] for scheme in _NAMED if source.startswith(scheme)]
    return list(dict.fromkeys([pool.metadata.name, *named]))


def check_model(name: str | None, pool: Pool) -> None:
    """Raises:
    HttpRefused: the pool serves no model of this name.
    """
    names = model_names(pool)
    if name is not None and name not in names:
        text = f"this pool does not serve that model: ask for {' or '.join(names)}, or leave model out"
        raise HttpRefused(404, text, param="model", code="model_not_found")


def model_card(name: str, created: int) -> dict[str, Any]:
    """One model in OpenAI's shape. `created`: Unix time, here of the gateway's start."""
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}
