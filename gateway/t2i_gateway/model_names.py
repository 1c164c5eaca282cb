"""What clients call the pool's models, and what they ask for by each name.

The pool's name leaves the choice to the pool. Its own model goes by the name of its source, and by `reference` where
there are others; these go by their names in workerGroups. Where two would be called alike, it is another model, else
the pool, that has the name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from t2i_api.pool import Pool
from t2i_gateway.errors import ModelUnknown

REFERENCE = "reference"
_NAMED = ("builtin://", "hf://")  # other sources are paths, which are nobody's business


@dataclass(frozen=True, slots=True)
class ModelNames:
    """`own`: what the pool's own model is called. `demands`: by name, the model that must draw; "" is the pool's own,
    None: any may."""

    own: str
    demands: Mapping[str, str | None]

    @classmethod
    def of(cls, pool: Pool) -> "ModelNames":
        source, others = pool.spec.model.source, pool.spec.models
        named = [source.removeprefix(scheme).partition("@")[0] for scheme in _NAMED if source.startswith(scheme)]
        if not others:
            return cls((named or [pool.metadata.name])[0], dict.fromkeys([pool.metadata.name, *named]))
        own: dict[str, str | None] = dict.fromkeys([*named, REFERENCE], "")
        return cls(
            next((name for name in own if name not in others and name != pool.metadata.name), REFERENCE),
            {pool.metadata.name: None} | own | {pool.metadata.name: None} | {name: name for name in others},
        )

    def demanded(self, name: str) -> str | None:
        """The model that must draw what is asked for by this name; "" names none.

        Raises:
            ModelUnknown: there is no such name.
        """
        if name:
            self.check(name)
        return self.demands.get(name)

    def check(self, name: str) -> None:
        """Raises:
        ModelUnknown: there is no such name.
        """
        if name not in self.demands:
            *most, last = self.demands
            names = f"{', '.join(most)} or {last}" if most else last
            raise ModelUnknown(f"this pool does not serve that model: ask for {names}, or leave model out")

    def name_of(self, model: str) -> str:
        """What metrics and sentences call one of the pool's models."""
        return model or self.own


def source_name(source: str) -> str:
    """What files call a model of this source. A path of ours is nobody's business: its last part names the model."""
    return source.rstrip("/").rpartition("/")[2] if source.startswith(("file://", "pvc://")) else source
