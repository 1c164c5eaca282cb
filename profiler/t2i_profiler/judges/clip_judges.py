"""Judges on a CLIP model of transformers: PickScore, CLIPScore, the LAION aesthetic predictor.

pickscore   100 x cosine of image and prompt, as the preference model was trained to rank them: logit_scale x cosine in
            its authors' example (Kirstain et al. 2023, arXiv 2305.01569), whose trained logit_scale is 100
clipscore   100 x cosine, cut at 0 (Hessel et al. 2021, arXiv 2104.08718, as torchmetrics scales it)
aesthetic   a small head on the image's unit embedding, about 1 to 10; it does not read the prompt (LAION, 2022)
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, CLIPVisionModelWithProjection

from t2i_profiler.errors import JudgeUnusable
from t2i_profiler.images import open_image
from t2i_profiler.judges.folders import JudgeFolder, read_weights
from t2i_profiler.judges.judge import JudgeCard, JudgedImage
from t2i_profiler.judges.networks import NetworkJudge

_HEADS = ("layers.", "predictor.")


class PromptMatchJudge(NetworkJudge):
    """How well an image fits its prompt, by a model that embeds both. Scores are logit_scale x cosine."""

    def __init__(self, card: JudgeCard, folder: JudgeFolder, device: str, clipped: bool) -> None:
        super().__init__(card, device)
        self._clipped = clipped
        self._model = _load(AutoModel, folder.path, card).eval().to(device)
        if not hasattr(self._model, "logit_scale"):
            raise JudgeUnusable(f"--judge {card.kind}: {card.source!r} reads no prompts: give a whole CLIP model")
        self._processor = _load_processor(AutoProcessor, folder.path, card)

    def _score(self, images: Sequence[JudgedImage]) -> list[float]:
        given = self._processor(
            text=[one.sample.prompt for one in images],
            images=[open_image(one.image) for one in images],
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=self._longest,
        ).to(self._device)
        out = self._model(**given)
        cosines = (_unit(out.image_embeds) * _unit(out.text_embeds)).sum(-1)
        found = (100 * cosines).clamp(min=0) if self._clipped else self._model.logit_scale.exp() * cosines
        return [float(score) for score in found]

    @cached_property
    def _longest(self) -> int:
        """Tokens that the text model reads; what is longer is cut, as its authors cut it."""
        text = getattr(self._model.config, "text_config", self._model.config)
        return int(text.max_position_embeddings)


class AestheticJudge(NetworkJudge):
    """How well people like such images, whatever the prompt."""

    def __init__(self, card: JudgeCard, folder: JudgeFolder, device: str) -> None:
        super().__init__(card, device)
        self._head = _read_head(folder.path, card).to(device)
        self._model = _load(CLIPVisionModelWithProjection, folder.path, card).eval().to(device)
        self._processor = _load_processor(AutoImageProcessor, folder.path, card)

    def _score(self, images: Sequence[JudgedImage]) -> list[float]:
        opened = [open_image(one.image) for one in images]
        given = self._processor(images=opened, return_tensors="pt").to(self._device)
        return [float(score) for score in self._head(_unit(self._model(**given).image_embeds))[:, 0]]


def _load(kind: Any, folder: Path, card: JudgeCard) -> Any:
    """Raises:
    JudgeUnusable: other weights than the model's; transformers would draw those that miss at random.
    """
    try:
        model, loading = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise JudgeUnusable(f"--judge {card.kind}: {card.source!r} cannot be loaded: {error}") from error
    if missing := sorted(loading["missing_keys"]):
        raise JudgeUnusable(
            f"--judge {card.kind}: {card.source!r} has no weights {missing[0]} and {len(missing)} in all"
        )
    return model


def _load_processor(kind: Any, folder: Path, card: JudgeCard) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise JudgeUnusable(
            f"--judge {card.kind}: {card.source!r} has no tokenizer or image processor beside its weights: {error}"
        ) from error


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    unit: torch.Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit


def _read_head(folder: Path, card: JudgeCard) -> nn.Sequential:
    """The head of LAION's predictors: linear layers in a row, as simple-aesthetics-predictor stores them.

    Version 1 has one, `predictor`; version 2 has five in `layers`, with nothing but dropout between them.

    Raises:
        JudgeUnusable: the folder has neither, or layers of another kind.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys() if name.startswith(_HEADS)}  # noqa: SIM118
    else:
        found = {
            name: one for name, one in read_weights(folder / "pytorch_model.bin").items() if name.startswith(_HEADS)
        }
    names = sorted(name for name in found if name.endswith("weight"))
    if not names:
        raise JudgeUnusable(
            f"--judge {card.kind}: {card.source!r} has no head (layers.* or predictor.*): a plain CLIP model is none"
        )
    layers: list[Any] = []
    for name in names:
        weight, bias = found[name].float(), found[name.replace("weight", "bias")].float()
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers.append(layer)
    return nn.Sequential(*layers).eval()
