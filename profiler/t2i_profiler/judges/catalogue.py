"""Judges by name and address: `KIND`, `KIND=ADDRESS`, `command://PROGRAM`, `https://...`.

An address is one as models have them: `file://`, `pvc://`, `hf://`. A kind without an address is the published one.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from t2i_profiler.errors import JudgeUnusable
from t2i_profiler.judges.folders import (
    JudgeFolder,
    choose_transformers_files,
    choose_vision_files,
    find_judge_folder,
)
from t2i_profiler.judges.judge import Judge, JudgeCard, Scale
from t2i_profiler.judges.own import open_own_judge
from t2i_profiler.judges.scenes import SceneJudge
from t2i_sources import SourceKind

Loader = Callable[[JudgeCard, JudgeFolder, str], Judge]
OWN = ("command", "http", "https")
_TRANSFORMERS = ("config.json", "model.safetensors", "pytorch_model.bin", "*preprocessor_config.json", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class JudgeKind:
    """`parts` are the files that its digest is of; `published` is where its authors' weights are."""

    published: str
    source: SourceKind
    parts: tuple[str, ...]
    scale: Scale
    load: Loader
    compares: bool = False


def _pickscore(card: JudgeCard, folder: JudgeFolder, device: str) -> Judge:
    from t2i_profiler.judges.clip_judges import PromptMatchJudge

    return PromptMatchJudge(card, folder, device, clipped=False)


def _clipscore(card: JudgeCard, folder: JudgeFolder, device: str) -> Judge:
    from t2i_profiler.judges.clip_judges import PromptMatchJudge

    return PromptMatchJudge(card, folder, device, clipped=True)


def _aesthetic(card: JudgeCard, folder: JudgeFolder, device: str) -> Judge:
    from t2i_profiler.judges.clip_judges import AestheticJudge

    return AestheticJudge(card, folder, device)


def _hps(card: JudgeCard, folder: JudgeFolder, device: str) -> Judge:
    from t2i_profiler.judges.hps import HpsJudge

    return HpsJudge(card, folder, device)


def _perceptual(card: JudgeCard, folder: JudgeFolder, device: str) -> Judge:
    from t2i_profiler.judges.perceptual import PerceptualJudge

    return PerceptualJudge(card, folder, device)


def choose_hps_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    """The newest published checkpoint, and a folder's own architecture."""
    del components, variant
    checkpoints = ("HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt", "open_clip_model.safetensors")
    chosen = [one for one in checkpoints if one in names][:1]
    return [*chosen, *(one for one in ("open_clip_config.json",) if one in names)]


def _clip_source(name: str, wanted: str) -> SourceKind:
    return SourceKind(f"--judge {name}", ("config.json",), wanted, choose_transformers_files)


def _vision_source(name: str) -> SourceKind:
    return SourceKind(f"--judge {name}", (), "a folder with weights of torchvision's VGG-16", choose_vision_files)


_VISION = ("*.pth", "model.safetensors", "pytorch_model.bin")
_PLAIN, _PERCENT = Scale(), Scale(0, 100)
_A_CLIP = "a folder of a CLIP model with its tokenizer, in the layout of transformers"
KINDS: Mapping[str, JudgeKind] = {
    "pickscore": JudgeKind(
        "hf://yuvalkirstain/PickScore_v1", _clip_source("pickscore", _A_CLIP), _TRANSFORMERS, _PERCENT, _pickscore
    ),
    "clipscore": JudgeKind(
        "hf://openai/clip-vit-large-patch14", _clip_source("clipscore", _A_CLIP), _TRANSFORMERS, _PERCENT, _clipscore
    ),
    "aesthetic": JudgeKind(
        "hf://shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE",
        _clip_source("aesthetic", "a folder of a CLIP vision model with a head"),
        _TRANSFORMERS,
        Scale(1, 10),
        _aesthetic,
    ),
    "hps": JudgeKind(
        "hf://xswu/HPSv2",
        SourceKind("--judge hps", (), "a folder with a checkpoint of HPSv2", choose_hps_files),
        ("*.pt", "*.safetensors", "open_clip_config.json"),
        _PLAIN,
        _hps,
    ),
    "lpips": JudgeKind(
        "hf://timm/vgg16.tv_in1k", _vision_source("lpips"), _VISION, Scale(0, 1, False), _perceptual, compares=True
    ),
    "dists": JudgeKind(
        "hf://timm/vgg16.tv_in1k", _vision_source("dists"), _VISION, Scale(0, 1, False), _perceptual, compares=True
    ),
}


async def open_judge(text: str, models_dir: Path, device: str = "") -> Judge:
    """The judge of a `--judge` option. A hub's weights are downloaded first, which may take minutes.

    `device`: of the judge's network; empty = the first GPU if there is one.

    Raises:
        JudgeUnusable: no such kind, address or package, or weights that do not fit; says what to do.
    """
    if text.partition("://")[0] in OWN:
        return await open_own_judge(text)
    name, _, source = text.partition("=")
    if name == "scenes" and not source:
        return SceneJudge()
    kind = KINDS.get(name)
    if kind is None:
        known = ", ".join(sorted([*KINDS, "scenes"]))
        raise JudgeUnusable(
            f"--judge {text}: must be one of {known}, alone or with =ADDRESS, or command://PROGRAM or https://..."
        )
    address = source or kind.published
    folder = await asyncio.to_thread(find_judge_folder, kind.source, address, models_dir, kind.parts)
    card = JudgeCard(name, address, folder.digest, kind.scale, kind.compares)
    try:
        return await asyncio.to_thread(kind.load, card, folder, device or _device())
    except ImportError as error:
        raise JudgeUnusable(
            f"--judge {name} needs packages that are not here ({error.name}): pip install 't2i-serving[worker,judges]'"
        ) from error


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
