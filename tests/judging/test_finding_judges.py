"""Judges by name and address: from a hub, from folders, and what is said where that does not work."""

from pathlib import Path

import pytest

from played_hub import played_hub
from t2i_api.pool import PoolSpec
from t2i_profiler.errors import JudgeUnusable
from t2i_profiler.judges.catalogue import KINDS, open_judge
from t2i_profiler.judges.judge import JudgedImage, Scale, Spacing
from t2i_testing_kit import tiny_judges
from t2ictl.errors import InputInvalid
from t2ictl.profiling import judges_of

#: What else lies in those repositories, of which nothing is wanted.
CLUTTER = {
    "README.md": b"#",
    "open_clip_pytorch_model.bin": b"x",
    "open_clip_model.safetensors.index.json": b"{}",
    "tf_model.h5": b"x",
    "onnx/model.onnx": b"x",
    "pytorch_model.bin": b"x",
}


@pytest.mark.parametrize("name", ["pickscore", "aesthetic", "hps", "lpips"])
async def test_published_weights_come_from_the_hub_once(
    name: str, folders: dict[str, Path], judged: list[JudgedImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name alone; only the files that the judge reads; the same scores and digest as from the folder."""
    repository = KINDS[name].published.removeprefix("hf://")
    files = {file.name: file.read_bytes() for file in folders[name].iterdir()}
    clutter = CLUTTER if "config.json" in files else {"README.md": b"#", "HPS_v2_compressed.pt": b"x"}
    with played_hub(repository, {**clutter, **files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        judge = await open_judge(name, tmp_path, "cpu")
        assert hub.fetched == files.keys()
        hub.up = False
        again = await open_judge(name, tmp_path, "cpu")
    beside = await open_judge(f"{name}={folders[name].as_uri()}", tmp_path, "cpu")
    assert judge.card.digest == again.card.digest == beside.card.digest
    assert await judge.score(judged) == await beside.score(judged)
    assert judge.card.record.source == KINDS[name].published
    assert not judge.card.record.same_as((await open_judge("scenes", tmp_path)).card.record)


async def test_other_weights_are_another_judge(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_judges.clip_folder(tmp_path / "other", seed=9)
    one = await open_judge(f"pickscore={folders['pickscore'].as_uri()}", tmp_path, "cpu")
    two = await open_judge(f"pickscore={other.as_uri()}", tmp_path, "cpu")
    assert not one.card.record.same_as(two.card.record)


async def test_what_is_no_judge_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Each with what to do; weights that a model lacks are never drawn at random."""
    clip, vgg = folders["pickscore"], folders["lpips"]
    refused = {
        "ssim": "must be one of aesthetic, clipscore, dists",
        f"pickscore={(tmp_path / 'none').as_uri()}": "no config.json found there",
        f"aesthetic={clip.as_uri()}": "has no head",
        f"pickscore={folders['aesthetic'].as_uri()}": "reads no prompts",
        f"lpips={clip.as_uri()}": "no weights of torchvision's VGG-16 or AlexNet",
        f"dists={folders['lpips-alex'].as_uri()}": "is no VGG-16",
        f"hps={vgg.as_uri()}": "no \\*.pt or",
    }
    for text, said in refused.items():
        with pytest.raises(JudgeUnusable, match=said):
            await open_judge(text, tmp_path, "cpu")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "vgg16-397923af.pth").write_bytes(b"half a download")
    with pytest.raises(JudgeUnusable, match="is the download complete"):
        await open_judge(f"lpips={broken.as_uri()}", tmp_path, "cpu")


def test_a_real_model_without_a_judge_is_refused(tmp_path: Path) -> None:
    """Nobody else can tell what its images are worth; the embedded model has its own scorer."""
    model = {"numInferenceSteps": 12, "width": 64, "height": 64}
    groups = [{"name": "cpu", "workers": 1}]
    real = PoolSpec.model_validate({"model": {"source": "file:///m", **model}, "workerGroups": groups})
    with pytest.raises(InputInvalid, match=r"--judge pickscore .*docs/judges\.md"):
        judges_of((), real, tmp_path)
    assert judges_of(("lpips",), real, tmp_path) == ("lpips",)
    own = PoolSpec.model_validate({"model": {"source": "builtin://scenes", **model}, "workerGroups": groups})
    assert judges_of((), own, None) == ("scenes",)


def test_scores_become_qualities() -> None:
    """One direction for all, cut to 0..1."""
    assert [Scale(0, 100).quality(one) for one in (-5, 21, 130)] == [0, pytest.approx(0.21), 1]
    assert [Scale(0, 1, False).quality(one) for one in (0, 0.3, 1.4)] == [1, pytest.approx(0.7), 0]
    normal = Scale(spacing=Spacing.NORMAL)
    assert [round(normal.quality(one), 3) for one in (-1, 0, 1)] == [0.159, 0.5, 0.841]
