"""Which pipeline class draws from images: the sibling of a model's own class, on the same components.

diffusers pairs its classes itself, in the mappings of its AutoPipelines. What these leave out is found by diffusers'
way of naming classes. So a new family needs no line here.

A class that takes an `image` without a `strength` edits: it looks at the image, and begins with noise. A class that
diffusers does not list for text-to-image, and that takes an image, cannot do without one.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
from diffusers.pipelines import auto_pipeline

from t2i_worker.pipelines.scenes import ScenesImg2ImgPipeline

_TEXT = auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING
_IMAGE = auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
_INPAINT = auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING
_OWN_IMAGE: Mapping[str, Any] = {"ScenesPipeline": ScenesImg2ImgPipeline}
Parameters = Mapping[str, inspect.Parameter]


@dataclass(frozen=True, slots=True)
class ImageTask:
    """`kind` draws what brings all of `needs` and nothing beyond `takes`: fields of a request's images."""

    kind: Any
    takes: frozenset[str]
    needs: frozenset[str]

    @property
    def edits(self) -> bool:
        return "reference_images" in self.takes

    def __str__(self) -> str:
        return " + ".join(sorted(self.takes))


@dataclass(frozen=True, slots=True)
class ImageTasks:
    """What a model does with images. `always`: it does nothing without."""

    tasks: tuple[ImageTask, ...]
    always: bool = False

    def task_for(self, used: Collection[str]) -> ImageTask | None:
        """For a request with these fields; None: there is none."""
        return next((one for one in self.tasks if used and one.needs <= set(used) <= one.takes), None)

    def wrong(self, used: frozenset[str]) -> tuple[str, ...]:
        """Fields that keep a request from being drawn: what no task takes, else what the nearest one lacks."""
        if unknown := used - set(self.takes):
            return tuple(sorted(unknown))
        return min((tuple(sorted((used - one.takes) | (one.needs - used))) for one in self.tasks), key=len, default=())

    @property
    def takes(self) -> tuple[str, ...]:
        """Fields that any of them takes."""
        return tuple(sorted(frozenset[str]().union(*(one.takes for one in self.tasks))))

    def __str__(self) -> str:
        return "it takes " + " or ".join(map(str, self.tasks)) if self.tasks else "it draws from text only"


def tasks_of(stock: Any) -> ImageTasks:
    """What a loaded pipeline can draw from."""
    own, takes = type(stock), parameters_of(type(stock))
    inpaint = _inpaint(_sibling(stock, _INPAINT, "Inpaint"))
    if "image" not in takes or "controlnet" in stock.components:  # the image of a ControlNet is something else
        return ImageTasks((*_image_to_image(_sibling(stock, _IMAGE, "Img2Img")), *inpaint))
    always = not any(own is kind for kind in _TEXT.values())
    if "mask_image" in takes:
        return ImageTasks(_inpaint(own), always)  # its denoiser may have channels for the mask
    if "strength" in takes:
        return ImageTasks((*_image_to_image(own), *inpaint), always)
    edit = ImageTask(own, takes=frozenset({"init_image", "reference_images"}), needs=frozenset())
    return ImageTasks((edit, *inpaint), always)


def make_sibling(kind: Any, stock: Any, **further: Any) -> Any:
    """A pipeline of this class on the same components, and on `further` ones. Nothing is moved or converted, as
    `from_pipe` would.
    """
    if type(stock) is kind:
        return stock
    own = {**stock.config, **stock.components, **further}
    made = kind(**{name: own[name] for name in inspect.signature(kind).parameters if name in own})
    made.set_progress_bar_config(disable=True)
    return made


def parameters_of(kind: Any) -> Parameters:
    return inspect.signature(kind.__call__).parameters


def _image_to_image(kind: Any) -> tuple[ImageTask, ...]:
    image = frozenset({"init_image"})
    return () if kind is None else (ImageTask(kind, takes=image | {"strength"}, needs=image),)


def _inpaint(kind: Any) -> tuple[ImageTask, ...]:
    both = frozenset({"init_image", "mask"})
    return () if kind is None else (ImageTask(kind, takes=both | {"strength"}, needs=both),)


def _sibling(stock: Any, mapping: Mapping[str, Any], suffix: str) -> Any:
    for kind in _candidates(type(stock), mapping, suffix):
        made_of = inspect.signature(kind).parameters.values()
        required = {one.name for one in made_of if one.default is inspect.Parameter.empty}
        if required <= stock.components.keys() and {"image", "prompt"} <= parameters_of(kind).keys():
            return kind
    return None


def _candidates(own: Any, mapping: Mapping[str, Any], suffix: str) -> Iterator[Any]:
    name = own.__name__
    if suffix == "Img2Img" and name in _OWN_IMAGE:
        yield _OWN_IMAGE[name]
    models = (model for known in (_TEXT, _IMAGE, _INPAINT) for model, kind in known.items() if kind.__name__ == name)
    yield from (mapping[model] for model in models if model in mapping)
    if isinstance(kind := getattr(diffusers, name.removesuffix("Pipeline") + f"{suffix}Pipeline", None), type):
        yield kind
