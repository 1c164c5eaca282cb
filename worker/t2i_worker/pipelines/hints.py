"""What the engine cannot read from a pipeline class: one line a family, and nothing for most of them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hints:
    """`shared`: denoiser arguments that never hold rows, although they may be as long as the batch by chance.

    `guidance`: the argument of `__call__` that a request's guidance scale goes to. `needs_true_cfg`: negative prompts
    have an effect only together with an argument `true_cfg_scale` above 1.
    """

    shared: tuple[str, ...] = ()
    guidance: str = "guidance_scale"
    needs_true_cfg: bool = False


_POSITIONS = ("img_ids", "txt_ids", "image_rotary_emb")
HINTS: Mapping[str, Hints] = {
    "FluxPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "FluxImg2ImgPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "FluxInpaintPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "FluxKontextPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "ChromaPipeline": Hints(shared=_POSITIONS),
    "Kandinsky5T2IPipeline": Hints(shared=("visual_rope_pos", "text_rope_pos")),
    "HunyuanImagePipeline": Hints(guidance="distilled_guidance_scale"),
    "QwenImagePipeline": Hints(guidance="true_cfg_scale"),
    "QwenImageEditPipeline": Hints(guidance="true_cfg_scale"),
    "QwenImageEditPlusPipeline": Hints(guidance="true_cfg_scale"),
}
NO_HINTS = Hints()


def hints_for(class_name: str) -> Hints:
    return HINTS.get(class_name, NO_HINTS)
