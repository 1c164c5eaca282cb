"""What the engine cannot read from a pipeline class: one line a family, and nothing for most of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Hints:
    """`shared`: denoiser arguments that never hold rows, although they may be as long as the batch by chance.

    `guidance`: the argument of `__call__` that a request's guidance scale goes to. `needs_true_cfg`: negative prompts
    have an effect only together with an argument `true_cfg_scale` above 1. `drops_text`: of an encoded text only the
    first `max_sequence_length` tokens are used. `references`: images that an editing class looks at together.
    """

    shared: tuple[str, ...] = ()
    guidance: str = "guidance_scale"
    needs_true_cfg: bool = False
    drops_text: bool = False
    references: int = 1


_POSITIONS = ("img_ids", "txt_ids", "image_rotary_emb")
_QWEN = Hints(guidance="true_cfg_scale", drops_text=True)
HINTS: Mapping[str, Hints] = {
    "FluxPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "FluxImg2ImgPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "FluxInpaintPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "Flux2Pipeline": Hints(references=4),
    "Flux2KleinPipeline": Hints(references=4),
    "FluxKontextPipeline": Hints(shared=_POSITIONS, needs_true_cfg=True),
    "ChromaPipeline": Hints(shared=_POSITIONS),
    "Kandinsky5T2IPipeline": Hints(shared=("visual_rope_pos", "text_rope_pos")),
    "HunyuanImagePipeline": Hints(guidance="distilled_guidance_scale"),
    "QwenImagePipeline": _QWEN,
    "QwenImageEditPipeline": _QWEN,
    "QwenImageEditPlusPipeline": replace(_QWEN, references=4),
}
NO_HINTS = Hints()


def hints_for(class_name: str) -> Hints:
    return HINTS.get(class_name, NO_HINTS)
