"""`--model GROUP=MODEL`: what if the workers of a group held another model of the pool's profile than the pool says."""

from collections.abc import Mapping, Sequence

from t2i_api.pool import PoolSpec
from t2ictl.errors import InputInvalid


def parse_models(texts: Sequence[str], spec: PoolSpec) -> Mapping[str, str]:
    """The model of each group that is named.

    Raises:
        InputInvalid: not of that form, or no group of the pool is named so.
    """
    found: dict[str, str] = {}
    for text in texts:
        group, _, model = text.partition("=")
        if not model:
            raise InputInvalid(
                f"--model {text!r}: expected GROUP=MODEL, with a model that the profile has a section for"
            )
        if group not in spec.group_sizes:
            raise InputInvalid(f"--model {text!r}: no group {group!r}; there is {', '.join(spec.group_sizes)}")
        found[group] = model
    if found and spec.pinned_workers:
        raise InputInvalid("--model: mix.mode Fixed places every worker at a level: make it Auto, or edit the file")
    held = {**spec.group_models, **found}
    if all(held.values()):
        raise InputInvalid(
            "--model: no group would hold spec.model, which all quality is measured against: leave one group as it is"
        )
    return found
