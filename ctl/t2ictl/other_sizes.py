"""`--size WIDTHxHEIGHT=SHARE`: the share of a simulated trace that asks for another size than the pool's default."""

import re
from collections.abc import Sequence

from t2i_api.model import ModelPart
from t2i_policy.image_size import ImageSize, step_cost_of
from t2i_policy.profile import LevelProfile
from t2i_simulator.scenario import OtherSize
from t2ictl.errors import InputInvalid

_FORM = re.compile(r"(\d{1,5})x(\d{1,5})=(0?\.\d+|1(?:\.0*)?)")


def parse_other_sizes(texts: Sequence[str], model: ModelPart, profile: LevelProfile) -> tuple[OtherSize, ...]:
    """What their steps cost says the profile, or else the pixels.

    Raises:
        InputInvalid: not of that form, a size that the pool does not serve, or more than all requests.
    """
    found = []
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputInvalid(f"--size {text!r}: expected WIDTHxHEIGHT=SHARE with a share from 0 to 1")
        size, share = ImageSize(int(match[1]), int(match[2])), float(match[3])
        if not model.serves(*size):
            raise InputInvalid(f"--size {text!r}: the pool makes images of {model.sizes_served}; add it to model.sizes")
        found.append(OtherSize(share, step_cost_of(size, model.default_size, profile.sizes)))
    if sum(one.share for one in found) > 1:
        raise InputInvalid("--size: the shares must not be more than 1 together")
    return tuple(found)
