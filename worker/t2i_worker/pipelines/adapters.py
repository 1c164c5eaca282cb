"""LoRA adapters of a pool: loaded by diffusers' own loader beside the model, and active only where a call asks.

peft puts a layer of its own around each layer that an adapter changes. That one keeps as state which adapters act and
how strongly. So the state is set before each forward, by the one thread that runs it. Without an active adapter the
layer only calls the model's own: nothing is added, and the image is exactly that of the model without peft.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from t2i_runtime.drawing import ScaledAdapter
from t2i_worker.errors import ModelUnsupported

ActiveAdapters = tuple[ScaledAdapter, ...]


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A safetensors file, and what the pool calls the adapter in it."""

    name: str
    path: Path


class AdapterLayers:
    """peft's layers in some modules. `peft_names` maps the pool's names of adapters to peft's."""

    def __init__(self, modules: Iterable[nn.Module], peft_names: Mapping[str, str]) -> None:
        parts = [part for module in modules for part in module.modules()]
        self._layers: list[Any] = [part for part in parts if isinstance(part, BaseTunerLayer)]
        here = {peft_name for layer in self._layers for peft_name in layer.scaling}
        self._peft_names = {name: peft_name for name, peft_name in peft_names.items() if peft_name in here}
        self._active: ActiveAdapters | None = None
        self.use(())

    def __bool__(self) -> bool:
        return bool(self._layers)

    def of(self, adapters: Iterable[ScaledAdapter]) -> ActiveAdapters:
        """Those of them that change these modules."""
        return tuple(one for one in adapters if one.name in self._peft_names)

    def use(self, adapters: ActiveAdapters) -> None:
        """From now on just these act, all of them known here. Nothing is done if they do already."""
        if adapters == self._active:
            return
        self._active = None
        scales = {self._peft_names[one.name]: one.scale for one in adapters}
        for layer in self._layers:
            # peft's own setters change every parameter's `requires_grad` too: 50 times as slow, at every switch.
            acting = [name for name in scales if name in layer.scaling]
            layer._active_adapter, layer._disable_adapters = acting, not acting
            for name in acting:
                layer.set_scale(name, scales[name])
        self._active = adapters


def load_adapters(stock: Any, files: Sequence[AdapterFile]) -> Mapping[str, str]:
    """Load them all into a pipeline; returns peft's names by the pool's.

    Raises:
        ModelUnsupported: names the adapter that is broken or does not fit.
    """
    # Names of our own: peft looks for them inside those of the model's parts, and takes no dots.
    peft_names = {one.name: f"pool{index:03d}" for index, one in enumerate(files)}
    for one in files:
        if not hasattr(stock, "load_lora_weights"):
            raise _refused(one, f"{type(stock).__name__} takes no LoRA adapters")
        with _own_weights_stay(stock, one):
            _load(stock, one, peft_names[one.name])
    return peft_names


def _load(stock: Any, one: AdapterFile, peft_name: str) -> None:
    try:
        stock.load_lora_weights(
            one.path.parent, weight_name=one.path.name, adapter_name=peft_name, local_files_only=True
        )
    except Exception as error:  # diffusers, peft, torch and safetensors raise their own kinds
        raise _refused(one, f"it cannot be loaded: {type(error).__name__}: {error}"[:500]) from error
    if not any(peft_name in names for names in stock.get_list_adapters().values()):
        raise _refused(one, f"it changes nothing of {type(stock).__name__}: it was made for another model")


@contextmanager
def _own_weights_stay(stock: Any, one: AdapterFile) -> Iterator[None]:
    """Some adapters replace weights of the model instead of adding to them: those would change everybody's images."""
    own = [parameter for module in _modules(stock) for parameter in module.parameters()]
    before = [(parameter._version, parameter.requires_grad) for parameter in own]
    yield
    there = {id(parameter) for module in _modules(stock) for parameter in module.parameters()}
    for parameter, (version, requires_grad) in zip(own, before, strict=True):
        if id(parameter) not in there or parameter._version != version:
            raise _refused(one, "it replaces weights of the model, which all requests share")
        # peft freezes them; torch would take other kernels then, whose sums differ from stock
        parameter.requires_grad_(requires_grad)


def _modules(stock: Any) -> Iterator[nn.Module]:
    return (part for part in stock.components.values() if isinstance(part, nn.Module))


def _refused(one: AdapterFile, why: str) -> ModelUnsupported:
    return ModelUnsupported(f"model.adapters[{one.name!r}]: {why}")
