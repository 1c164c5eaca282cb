"""Judges that compare with the exact image by features of a network: LPIPS and DISTS, of torchmetrics.

Zhang et al. 2018, arXiv 1801.03924; Ding et al. 2020, arXiv 2004.07728. 0 for equal images, rarely above 1, low is
good. The published heads lie in torchmetrics. The network's own weights are the judge's folder: torchvision's VGG-16
for both, or its AlexNet for LPIPS.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torchmetrics.functional.image import dists as dists_of_torchmetrics
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.transforms.functional import pil_to_tensor, resize

from t2i_profiler.errors import JudgeFailed, JudgeUnusable
from t2i_profiler.images import open_image
from t2i_profiler.judges.folders import JudgeFolder, read_weights
from t2i_profiler.judges.judge import JudgeCard, JudgedImage
from t2i_profiler.judges.networks import NetworkJudge

LEAST_SIDE = 64  # AlexNet and VGG-16 halve the sides five times
DISTS_SIDE = 256  # to which DISTS' authors scale the shorter side of larger images
_NETWORKS = {11: "alex", 3: "vgg"}  # by the side of the first kernel


class PerceptualJudge(NetworkJudge):
    """LPIPS or DISTS between an image and the exact one."""

    def __init__(self, card: JudgeCard, folder: JudgeFolder, device: str) -> None:
        super().__init__(card, device)
        self._is_dists = card.kind == "dists"
        features = _features(folder.path, card)
        network = _NETWORKS[features["0.weight"].shape[-1]]
        if self._is_dists and network != "vgg":
            raise JudgeUnusable(f"--judge dists: {card.source!r} is no VGG-16: give hf://timm/vgg16.tv_in1k")
        self._model = (_dists(features) if self._is_dists else _lpips(network, features)).eval().to(device)

    def _score(self, images: Sequence[JudgedImage]) -> list[float]:
        return [self._score_one(one) for one in images]

    def _score_one(self, one: JudgedImage) -> float:
        if one.image == one.exact:
            return 0.0
        image, exact = (self._tensor(data) for data in (one.image, one.exact))
        if image.shape != exact.shape:
            raise JudgeFailed(f"--judge {self.card.kind}: an image and the exact one differ in size")
        found = self._model(image, exact) if self._is_dists else self._model(image, exact, normalize=True)
        return max(0.0, float(found))

    def _tensor(self, data: bytes) -> torch.Tensor:
        """float32 [1,3,H,W] in 0..1."""
        image: torch.Tensor = pil_to_tensor(open_image(data)).float()[None] / 255
        least = min(image.shape[-2:])
        if self._is_dists and least > DISTS_SIDE:
            image = resize(image, DISTS_SIDE, antialias=True).clamp(0, 1)
        elif least < LEAST_SIDE:
            image = resize(image, LEAST_SIDE, antialias=True).clamp(0, 1)
        return image.to(self._device)


def _features(folder: Path, card: JudgeCard) -> Mapping[str, Any]:
    """The convolutions by number, such as `0.weight`.

    Raises:
        JudgeUnusable: weights of another network.
    """
    files = sorted([*folder.glob("*.pth"), *folder.glob("model.safetensors"), *folder.glob("pytorch_model.bin")])
    weights = read_weights(files[0])
    prefix = "features."
    found = {name.removeprefix(prefix): one.float() for name, one in weights.items() if name.startswith(prefix)}
    if "0.weight" not in found or found["0.weight"].shape[-1] not in _NETWORKS:
        raise JudgeUnusable(
            f"--judge {card.kind}: {card.source!r} has no weights of torchvision's VGG-16 or AlexNet (features.*)"
        )
    return found


def _lpips(network: str, features: Mapping[str, Any]) -> Any:
    model = _LPIPS(net=network, pnet_rand=True)
    own = {name: name.partition(".")[2] for name in model.net.state_dict()}  # slice1.0.weight -> 0.weight
    model.net.load_state_dict({name: features[number] for name, number in own.items()})
    return model


def _dists(features: Mapping[str, Any]) -> Any:
    with _untrained_vgg16():
        model = dists_of_torchmetrics.DISTSNetwork()
    for stage in (model.stage1, model.stage2, model.stage3, model.stage4, model.stage5):
        own = {name for name in stage.state_dict() if not name.endswith("filter")}
        stage.load_state_dict({name: features[name] for name in own}, strict=False)
    return model


@contextmanager
def _untrained_vgg16() -> Iterator[None]:
    """torchmetrics would download the weights that the folder holds."""
    theirs = dists_of_torchmetrics.vgg16
    dists_of_torchmetrics.vgg16 = lambda **_: torchvision.models.vgg16(weights=None, init_weights=False)
    try:
        yield
    finally:
        dists_of_torchmetrics.vgg16 = theirs
