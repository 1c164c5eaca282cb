"""The model's part of the pool's spec: weights and schedule, sizes, adapters and ControlNets."""

from typing import Annotated, Literal

from pydantic import Field

from t2i_api.cache import Address
from t2i_api.part import Part as _Part
from t2i_policy.image_size import ImageSize

DEFAULT_EMBEDDER = "hf://sentence-transformers/all-MiniLM-L6-v2"

# strict: as for the API server, "5", true and 5.0 are no whole numbers
Steps = Annotated[int, Field(ge=1, le=1000, strict=True)]
Pixels = Annotated[int, Field(ge=8, le=8192, multiple_of=8, strict=True)]
_INSIDE = r"[A-Za-z0-9_][A-Za-z0-9._ -]*"  # a name in a path, which cannot lead out of a folder
_ENCODER = rf"^((hf|file|pvc)://.+|({_INSIDE}/)*{_INSIDE})$"
AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$", max_length=63)]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)]


class AdapterPart(_Part):
    """A LoRA adapter that every worker loads beside the model. Requests choose it by name."""

    name: AdapterName
    """Name of the adapter, unique in the pool: what requests call it."""
    source: Annotated[Address, Field(pattern=r"^(hf|file|pvc)://.+")]
    """Where its safetensors file is: hf://ORG/NAME[@REVISION], file:///PATH or pvc://CLAIM/PATH. The last two may name
    the file itself, or its folder."""
    scale_percent: Annotated[int, Field(ge=0, le=200, strict=True)] = 100
    """How strongly it acts where a request says nothing: 100 is as it was trained."""
    weight_name: Annotated[str, Field(max_length=256, pattern=r"^$|^[A-Za-z0-9_][A-Za-z0-9._ -]*\.safetensors$")] = ""
    """The file in a folder or repository with several. Empty: pytorch_lora_weights.safetensors, or the only one."""

    @property
    def scale(self) -> float:
        """Its own scale; 1.0 = as trained."""
        return self.scale_percent / 100


class SizePart(_Part):
    """One size of images, or a range of sizes from `width` x `height` to `maxWidth` x `maxHeight`."""

    width: Pixels
    """Width in pixels, a multiple of 8; of a range the smallest."""
    height: Pixels
    """Height in pixels, a multiple of 8; of a range the smallest."""
    max_width: Pixels | None = None
    """Largest width of a range; left out: `width` alone."""
    max_height: Pixels | None = None
    """Largest height of a range; left out: `height` alone."""
    multiple_of: Pixels = 8
    """Widths and heights of a range are multiples of this, as the model needs: FLUX 16, many others 8."""

    @property
    def smallest(self) -> ImageSize:
        return ImageSize(self.width, self.height)

    @property
    def largest(self) -> ImageSize:
        return ImageSize(self.max_width or self.width, self.max_height or self.height)

    @property
    def measured(self) -> tuple[ImageSize, ...]:
        """What a worker draws at warm-up: the ends, the middle, and one step from the smallest."""
        low, high, step = self.smallest, self.largest, self.multiple_of
        middle = ImageSize(*((one + other) // 2 // step * step for one, other in zip(low, high, strict=True)))
        beside = ImageSize(*(min(one + step, other) for one, other in zip(low, high, strict=True)))
        return tuple(dict.fromkeys((low, beside, middle, high)))

    def holds(self, size: ImageSize) -> bool:
        return all(
            low <= asked <= high and asked % self.multiple_of == 0
            for low, asked, high in zip(self.smallest, size, self.largest, strict=True)
        )

    def __str__(self) -> str:
        if self.smallest == self.largest:
            return str(self.smallest)
        return f"{self.smallest} to {self.largest} in steps of {self.multiple_of}"


class ComponentPart(_Part):
    """A ControlNet or an IP-Adapter that every worker loads beside the model. Requests give it an image by its name."""

    name: AdapterName
    """Name of the component, unique in the pool: what requests call it, such as canny or face."""
    kind: Literal["ControlNet", "IPAdapter"] = "ControlNet"
    """What it is, made for this model: a ControlNet in diffusers' layout, or an IP-Adapter."""
    source: Annotated[Address, Field(pattern=r"^(hf|file|pvc)://.+")]
    """Where its folder is: hf://ORG/NAME[@REVISION], file:///PATH or pvc://CLAIM/PATH."""
    weight_name: Annotated[str, Field(max_length=256, pattern=rf"^({_INSIDE}/)*{_INSIDE}\.safetensors$")] | None = None
    """Of an IPAdapter, and needed there: its file in the folder or repository, such as
    sdxl_models/ip-adapter_sdxl.safetensors."""
    image_encoder: Annotated[str, Field(max_length=256, pattern=_ENCODER)] | None = None
    """Of an IPAdapter: the folder of its image encoder in the same source, such as models/image_encoder, or an address
    of its own, such as hf://openai/clip-vit-large-patch14. Left out: image_encoder beside the weights."""
    scale_percent: Annotated[int, Field(ge=0, le=200, strict=True)] = 100
    """How strongly it acts where a request says nothing."""

    @property
    def scale(self) -> float:
        """Its own scale; 1.0 = as trained."""
        return self.scale_percent / 100


class ModelPart(_Part):
    """The diffusers model that workers keep warm where their group names no other, and its full schedule. Quality is
    measured against its exact images. Immutable: latents and profile are of exactly this."""

    source: Annotated[Address, Field(pattern=r"^(builtin|hf|file|pvc)://.+")]
    """Where the weights are: builtin://scenes, hf://ORG/NAME, file:///PATH or pvc://CLAIM/PATH."""
    num_inference_steps: Steps = 50
    """Denoising steps of the full schedule: what an exact image takes."""
    guidance_scale_percent: Annotated[int, Field(ge=0, le=3000, strict=True)] = 700
    """Classifier-free guidance scale in percent: 700 is 7.0, 100 is off."""
    width: Pixels = 1024
    """Width of an image in pixels where the request names none, a multiple of 8."""
    height: Pixels = 1024
    """Height of an image in pixels where the request names none, a multiple of 8."""
    sizes: Annotated[tuple[SizePart, ...], Field(max_length=32)] = ()
    """Further sizes that requests may ask for; empty: `width` x `height` alone."""
    precision: Literal["fp32", "fp16", "bf16", "fp8"] = "bf16"
    """Number format of the weights on the device. fp8: the denoiser's matrices only, bf16 for the rest. It needs a GPU
    of compute capability 8.9 or more and torchao in the workers' image, and draws other images than bf16."""
    compile: Literal["Auto", "Off"] = "Off"
    """Auto: workers compile the denoiser when they start, and replay it as CUDA graphs on a GPU. They check that it
    draws the same up to rounding, and go on without where it does not. Starts take minutes longer; the first image of
    another size or text length may wait while its kernels are compiled."""
    attention: Literal["Auto", "Native"] = "Native"
    """Auto: workers try the attention kernels of their GPU when they start, and take the fastest that draws the same up
    to rounding. Native: PyTorch's own choice."""
    revision: Annotated[str, Field(max_length=256)] = ""
    """Branch, tag or commit of a hf:// source; empty is its default branch."""
    embedder: Annotated[Address, Field(pattern=r"^$|^(builtin|hf|file|pvc)://.+")] = ""
    """What tells how alike two prompts are, which is what cached latents are found by: a sentence encoder with an ONNX
    export, such as hf://ORG/NAME[@REVISION] or pvc://CLAIM/PATH. Empty: a builtin model's own, all-MiniLM-L6-v2 of the
    hub for a hf:// source, and none for others: then no cached latent is ever used."""

    preview_decoder: Annotated[Address, Field(pattern=r"^$|^(hf|file|pvc)://.+")] = ""
    """A small decoder for previews, which costs the device little where the model's own takes as long as some steps: a
    folder of diffusers' AutoencoderTiny for this model's latents, such as hf://madebyollin/taesdxl[@REVISION]. Empty:
    the model's own decoder."""
    adapters: Annotated[tuple[AdapterPart, ...], Field(max_length=32)] = ()
    """LoRA adapters that requests may choose, each by its name. Requests without them get the plain model."""

    components: Annotated[tuple[ComponentPart, ...], Field(max_length=8)] = ()
    """ControlNets and IP-Adapters that requests may give an image, each by its name. Each takes memory on every
    worker's device."""

    def component_scales(self, kind: str) -> dict[str, float]:
        """The own scales of the components of a kind, by name."""
        return {component.name: component.scale for component in self.components if component.kind == kind}

    @property
    def adapter_scales(self) -> dict[str, float]:
        """The adapters' own scales by name."""
        return {adapter.name: adapter.scale for adapter in self.adapters}

    @property
    def embedder_source(self) -> str:
        """The embedder that is meant; empty = none."""
        if self.embedder:
            return self.embedder
        defaults = {"builtin": self.source, "hf": DEFAULT_EMBEDDER}
        return defaults.get(self.source.partition("://")[0], "")

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance scale; 1.0 = off."""
        return self.guidance_scale_percent / 100

    @property
    def default_size(self) -> ImageSize:
        return ImageSize(self.width, self.height)

    @property
    def measured_sizes(self) -> tuple[ImageSize, ...]:
        """The default size first, then those whose steps a worker measures beside it, the smaller first."""
        others = {size for part in self.sizes for size in part.measured} - {self.default_size}
        return (self.default_size, *sorted(others, key=lambda size: (size.pixels, size)))

    def serves(self, width: int, height: int) -> bool:
        """Whether images of this size are drawn."""
        size = ImageSize(width, height)
        return size == self.default_size or any(part.holds(size) for part in self.sizes)

    def size_label(self, size: ImageSize) -> str:
        """A size in metrics: few values, however many a range has."""
        listed = {self.default_size, *(part.smallest for part in self.sizes if part.smallest == part.largest)}
        return str(size) if size in listed else "range"

    @property
    def sizes_served(self) -> str:
        """All sizes, in words."""
        return ", ".join(dict.fromkeys((str(self.default_size), *map(str, self.sizes))))


class GroupModelPart(_Part):
    """Another model that the workers of a group hold in place of the pool's. Sizes are shared; it takes no components,
    and latents are stored of the pool's own model only. What its levels lose is in the profile's section of its name.
    """

    name: ModelName
    """Name of the model: what levels, requests, metrics and the profile call it. Groups of one name hold one model."""
    source: Annotated[Address, Field(pattern=r"^(builtin|hf|file|pvc)://.+")]
    """Where the weights are: builtin://NAME, hf://ORG/NAME, file:///PATH or pvc://CLAIM/PATH."""
    num_inference_steps: Steps | None = None
    """Denoising steps of its full schedule; left out: as many as the pool's model."""
    guidance_scale_percent: Annotated[int, Field(ge=0, le=3000, strict=True)] | None = None
    """Classifier-free guidance scale in percent, 100 is off; left out: as the pool's model."""
    precision: Literal["fp32", "fp16", "bf16", "fp8"] | None = None
    """Number format of the weights on the device; left out: as the pool's model."""
    revision: Annotated[str, Field(max_length=256)] = ""
    """Branch, tag or commit of a hf:// source; empty is its default branch."""
    adapters: Annotated[tuple[AdapterPart, ...], Field(max_length=32)] = ()
    """LoRA adapters of this model. The pool's own are for the pool's model."""

    def beside(self, own: ModelPart) -> ModelPart:
        """The whole model, `own` being the pool's."""
        told = {
            "source": self.source,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale_percent": self.guidance_scale_percent,
            "precision": self.precision,
        }
        given = {name: value for name, value in told.items() if value is not None}
        nothing = {"preview_decoder": "", "components": ()}  # those of the pool are for its own model
        return own.model_copy(update=given | nothing | {"revision": self.revision, "adapters": self.adapters})
