"""Every family that people serve draws what the stock pipeline of the installed diffusers draws.

Alone that is exact in fp32. In a batch of other prompts, steps, guidance and starts it is within rounding. A run that
is resumed from its own latent is exact too, except where the sampler looks back: `limits` names those.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.limits import MIXED_BOUND, NOT_SHARED, RESUMED_INEXACT
from t2i_testing_kit.tiny_pipelines.measure import FamilyFigures, measure_family
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, load_stock, stock_run
from t2i_worker.errors import JobInvalid

#: `make bench-pipelines` measures these: an edit reads a megapixel, which takes seconds.
SLOW = ("qwen-image-edit",)
FLAGGED = "sd15-flagged"
MEASURED = [name for name in FAMILIES if name not in (*SLOW, FLAGGED)]


@pytest.fixture(scope="module")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda name: save_family(name, tmp_path_factory.mktemp("families") / name))


@pytest.fixture(scope="module")
def figures_of(family_folder: Callable[[str], Path]) -> Callable[[str], FamilyFigures]:
    return cache(lambda name: measure_family(name, family_folder(name)))


@pytest.mark.parametrize("name", MEASURED)
def test_family_draws_what_stock_draws(name: str, figures_of: Callable[[str], FamilyFigures]) -> None:
    """To the last bit alone; in a batch within a ten-thousandth of the latents' deviation."""
    figures = figures_of(name)
    assert (figures.alone_max, figures.alone_pixels_max) == (0.0, 0)
    assert (figures.shared_forwards > 0) is (name not in NOT_SHARED)
    assert figures.mixed_max_of_std <= MIXED_BOUND
    assert figures.mixed_pixels_max <= 1


@pytest.mark.parametrize("name", MEASURED)
def test_resumed_run_ends_where_the_whole_one_does(name: str, figures_of: Callable[[str], FamilyFigures]) -> None:
    """Bit for bit where the sampler does not look back; the page of models names the others, and no others."""
    apart = max(figures_of(name).resumed_of_std.values())
    assert (apart > 0) is (name in RESUMED_INEXACT), apart


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux-dev"])
def test_half_precision_rounds_as_stock_does(name: str, family_folder: Callable[[str], Path]) -> None:
    """Guidance scales and timesteps that bf16 cannot hold are where an engine of one's own goes astray."""
    folder, request = family_folder(name), TinyRequest(seed=5, guidance=4.3)
    expected = stock_run(load_stock(folder, torch.bfloat16), name, request)
    (run,) = TinyEngine(name, folder, "bf16").draw([request])
    assert run.error is None
    assert torch.equal(run.final, expected.final)


def test_every_limit_names_a_family() -> None:
    assert {*RESUMED_INEXACT, *NOT_SHARED} <= set(FAMILIES)


def test_flagged_image_is_held_back(family_folder: Callable[[str], Path]) -> None:
    """The model's own safety checker runs, and its black image is not served as a good one."""
    (run,) = TinyEngine(FLAGGED, family_folder(FLAGGED)).draw([TinyRequest()])
    assert isinstance(run.error, JobInvalid)
