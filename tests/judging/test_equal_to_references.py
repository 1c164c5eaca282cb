"""Every judge scores as its authors' own call does, on small random weights of the true architecture.

The largest differences are in docs/judges.md.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPVisionModelWithProjection

from t2i_profiler.images import open_image
from t2i_profiler.judges.catalogue import open_judge
from t2i_profiler.judges.judge import JudgedImage

Reference = Callable[[Path, Sequence[JudgedImage]], list[float]]
CLOSE = 1e-4  # of a score; floats add in another order in a batch


def pickscore(folder: Path, images: Sequence[JudgedImage]) -> list[float]:
    """The example on the model's card, https://huggingface.co/yuvalkirstain/PickScore_v1."""
    processor, model = CLIPProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    scores = []
    for one in images:
        pixels = processor(images=open_image(one.image), return_tensors="pt")
        longest = model.config.text_config.max_position_embeddings
        tokens = processor(
            text=one.sample.prompt, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        with torch.no_grad():
            image_embs = pooled(model.get_image_features(**pixels))
            image_embs = image_embs / torch.norm(image_embs, dim=-1, keepdim=True)
            text_embs = pooled(model.get_text_features(**tokens))
            text_embs = text_embs / torch.norm(text_embs, dim=-1, keepdim=True)
            scores.append(float(model.logit_scale.exp() * (text_embs @ image_embs.T)[0]))
    return scores


def pooled(found: Any) -> Any:
    """transformers 5 wraps what 4 gave plainly."""
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def clipscore(folder: Path, images: Sequence[JudgedImage]) -> list[float]:
    """torchmetrics, one image at a time: it gives the mean of what it is given.

    Of a prompt that is too long it cuts the end token too, which CLIP's own tokenizer keeps; here it gets what fits.
    """
    from torchmetrics.functional.multimodal import clip_score
    from torchvision.transforms.functional import pil_to_tensor

    class Plain(CLIPModel):
        """torchmetrics 1.9 expects what transformers 4 gave."""

        def get_image_features(self, *args: Any) -> Any:
            return pooled(super().get_image_features(*args))

        def get_text_features(self, *args: Any) -> Any:
            return pooled(super().get_text_features(*args))

    def load() -> tuple[Any, Any]:
        return Plain.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)

    fitting = [" ".join(one.sample.prompt.split()[:38]) for one in images]
    return [
        float(clip_score(pil_to_tensor(open_image(one.image)), prompt, load).detach())
        for one, prompt in zip(images, fitting, strict=True)
    ]


def aesthetic(folder: Path, images: Sequence[JudgedImage]) -> list[float]:
    """simple-aesthetics-predictor 0.1.2, whose package asks for transformers 4: its two classes in short."""

    class Predictor(CLIPVisionModelWithProjection):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            nn, width = torch.nn, config.projection_dim
            if folder.name.endswith("1"):
                self.predictor = nn.Linear(width, 1)
            else:
                self.layers = nn.Sequential(
                    *(nn.Linear(width, 64), nn.Dropout(0.2), nn.Linear(64, 32), nn.Dropout(0.2)),
                    *(nn.Linear(32, 16), nn.Dropout(0.1), nn.Linear(16, 8), nn.Linear(8, 1)),
                )
            self.post_init()

    model = Predictor.from_pretrained(folder).eval()
    head = model.predictor if folder.name.endswith("1") else model.layers
    processor, scores = CLIPImageProcessor.from_pretrained(folder), []
    for one in images:
        with torch.no_grad():
            embeds = model(**processor(images=open_image(one.image), return_tensors="pt")).image_embeds
            scores.append(float(head(embeds / embeds.norm(dim=-1, keepdim=True))))
    return scores


def hps(folder: Path, images: Sequence[JudgedImage]) -> list[float]:
    """`hpsv2.score` of hpsv2 1.2.0 in short; that package brings an open_clip of its own."""
    import open_clip

    model, _, preprocess_val = open_clip.create_model_and_transforms(
        f"local-dir:{folder}", load_weights=False, output_dict=True
    )
    model.load_state_dict(torch.load(folder / "HPS_v2.1_compressed.pt", weights_only=True)["state_dict"])
    tokenizer, scores = open_clip.get_tokenizer(f"local-dir:{folder}"), []
    for one in images:
        with torch.no_grad():
            image = preprocess_val(open_image(one.image)).unsqueeze(0)
            outputs = model.eval()(image, tokenizer([one.sample.prompt]))
            logits_per_image = outputs["image_features"] @ outputs["text_features"].T
            scores.append(float(torch.diagonal(logits_per_image)[0]))
    return scores


def lpips(folder: Path, images: Sequence[JudgedImage]) -> list[float]:
    """torchmetrics' own call, which looks for the network's weights where torch.hub keeps them."""
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    network: Any = "vgg" if folder.name == "vgg16" else "alex"
    return [
        float(learned_perceptual_image_patch_similarity(*tensors(one), net_type=network, normalize=True))
        for one in images
    ]


def dists(folder: Path, images: Sequence[JudgedImage]) -> list[float]:
    """As `lpips`."""
    from torchmetrics.functional.image import deep_image_structure_and_texture_similarity

    return [float(deep_image_structure_and_texture_similarity(*tensors(one)).detach()) for one in images]


def tensors(one: JudgedImage) -> list[torch.Tensor]:
    """float32 [1,3,H,W] in 0..1, the image and the exact one."""
    from torchvision.transforms.functional import pil_to_tensor

    return [pil_to_tensor(open_image(data)).float()[None] / 255 for data in (one.image, one.exact)]


@pytest.fixture
def hub_of_torch(folders: dict[str, Path], tmp_path: Path) -> Iterator[None]:
    """torch.hub's folder, with the weights of both networks."""
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    for folder in (folders["lpips"], folders["lpips-alex"]):
        for file in folder.iterdir():
            (kept / file.name).symlink_to(file)
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    yield
    torch.hub.set_dir(before)


REFERENCES: dict[str, Reference] = {
    "pickscore": pickscore,
    "clipscore": clipscore,
    "aesthetic": aesthetic,
    "aesthetic-1": aesthetic,
    "hps": hps,
    "lpips": lpips,
    "lpips-alex": lpips,
    "dists": dists,
}


@pytest.mark.usefixtures("hub_of_torch")
@pytest.mark.parametrize("name", REFERENCES)
async def test_scores_are_those_of_the_reference(
    name: str, folders: dict[str, Path], judged: list[JudgedImage], tmp_path: Path
) -> None:
    judge = await open_judge(f"{name.split('-')[0]}={folders[name].as_uri()}", tmp_path, "cpu")
    scores, expected = await judge.score(judged), REFERENCES[name](folders[name], judged)
    assert scores == pytest.approx(expected, abs=CLOSE)
    assert len({round(one, 3) for one in scores}) > 1, "a reference that is the same for all would show nothing"
    for one in scores:
        assert 0 < judge.card.scale.quality(one) < 1
