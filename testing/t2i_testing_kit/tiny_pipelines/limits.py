"""What is not exact, and why. A test holds that these and no others are inexact; docs/models.md shows the reasons."""

from collections.abc import Mapping

#: Largest difference in a batch to stock, in parts of the final latents' standard deviation.
MIXED_BOUND = 1e-4
_HISTORY = "the sampler uses its estimate of the step before, which a stored latent does not hold"
_FOUR_STEPS = "the sampler uses its slopes of up to four steps before, which a stored latent does not hold"
_PNDM = "PNDM needs the predictions of four steps before; a resumed run uses DDIM on the same noise levels"
#: Families that a run resumed at K leaves the whole run's course, with the reason. All others are exact.
RESUMED_INEXACT: Mapping[str, str] = {
    "sd15": _PNDM,
    "playground-v2.5": _HISTORY,
    "sana": _HISTORY,
    "pixart-sigma": _HISTORY,
    "hunyuan-image": "its guidance has momentum over the steps before, which a stored latent does not hold",
    "sdxl+dpm++2m-karras": _HISTORY,
    "sdxl+dpm++2m-sde-karras": _HISTORY,
    "sdxl+unipc": _HISTORY,
    "sdxl+pndm": _PNDM,
    "sdxl+deis": _HISTORY,
    "sdxl+lms": _FOUR_STEPS,
    "sdxl+dpm++singlestep": _HISTORY,
    "sdxl+sa-solver": _HISTORY,
}
#: Families whose requests never share a forward, with the reason.
NOT_SHARED: Mapping[str, str] = {
    "glm-image": "its denoiser takes a cache object of the request, so each request has forwards of its own",
}
