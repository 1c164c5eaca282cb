"""Puts an IP-Adapter of the pool into the denoiser and takes it out again, between two forwards.

A denoiser with an IP-Adapter has other attention processors and a projection of image embeddings. Each of its calls
must bring embeddings. So the one thread that runs the forwards puts an adapter in before a forward that asks for it.
All other forwards run the model's own processors: nothing is added to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from t2i_runtime.drawing import ScaledAdapter

KIND = "encoder_hid_dim_type"  # what of a UNet's configuration says which projection it has


@dataclass(frozen=True, slots=True)
class InsertedParts:
    """What a loaded IP-Adapter changes in a denoiser. `processors` are by their place among `_attentions`."""

    processors: Mapping[int, Any]
    projection: nn.Module | None
    kind: str | None


class IpAdapterSwitch:
    """Puts at most one of some IP-Adapters into a module, at a scale."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._projection = ""  # the name of its part that projects the embeddings
        self._attentions: list[Any] = [part for part in module.modules() if hasattr(part, "get_processor")]
        self._adapters: dict[str, InsertedParts] = {}
        self._replaced: dict[str, InsertedParts] = {}  # what each takes the place of
        self._own: InsertedParts | None = None
        self._active: ScaledAdapter | None = None

    def __bool__(self) -> bool:
        return bool(self._adapters)

    def take_out(self, name: str) -> InsertedParts:
        """Keep what was just loaded into the module under this name, and give the module its own again."""
        loaded, own = self._parts(), self._own
        if own is None:
            raise RuntimeError("`remember_own` comes before the first adapter is loaded")
        changed = {at: one for at, one in loaded.processors.items() if isinstance(one, nn.Module)}
        self._adapters[name] = InsertedParts(changed, loaded.projection, loaded.kind)
        self._replaced[name] = replace(own, processors={at: own.processors[at] for at in changed})
        self.restore()
        return self._adapters[name]

    def remember_own(self, projection: str) -> None:
        """Call it before an adapter is loaded. Its projection becomes the part of this name."""
        self.use(None)
        self._projection = projection
        self._own = self._own or self._parts()

    def restore(self) -> None:
        """The module has its own parts, whatever was put in."""
        if self._own is not None:
            self._put(self._own)
        self._active = None

    def use(self, wanted: ScaledAdapter | None) -> None:
        """From now on just this one acts, or none. Nothing is done if that is so already."""
        if wanted == self._active:
            return
        before, self._active = self._active, None
        if before is not None and (wanted is None or wanted.name != before.name):
            self._put(self._replaced[before.name])
            before = None
        if wanted is not None:
            if before is None:
                self._put(self._adapters[wanted.name])
            for processor in self._adapters[wanted.name].processors.values():
                processor.scale = [wanted.scale] if isinstance(processor.scale, (list, tuple)) else wanted.scale
        self._active = wanted

    def _parts(self) -> InsertedParts:
        processors = {at: attention.get_processor() for at, attention in enumerate(self._attentions)}
        return InsertedParts(processors, getattr(self._module, self._projection, None), self._config_kind())

    def _put(self, parts: InsertedParts) -> None:
        for at, processor in parts.processors.items():
            # Modules too stay out of `_modules`: other threads walk through those of the model meanwhile.
            attention = self._attentions[at]
            attention._modules.pop("processor", None)  # where diffusers' loader has put it
            attention.__dict__["processor"] = processor
        if hasattr(self._module, self._projection):
            setattr(self._module, self._projection, parts.projection)
            setattr(self._config, KIND, parts.kind)

    @property
    def _config(self) -> Any:
        return getattr(self._module, "config", None)

    def _config_kind(self) -> str | None:
        return getattr(self._config, KIND, None)
