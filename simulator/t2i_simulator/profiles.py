"""Find the profile of each worker group: the one that it names, else the model's own, else an error."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from t2i_api.pool import PoolSpec, WorkerGroupPart
from t2i_policy.judge_record import other_judge
from t2i_policy.profile import LevelProfile, ProfileError
from t2i_policy.profile_document import parse_profile
from t2i_simulator.errors import ProfileMissing
from t2i_simulator.workers import Group

NO_MODELS: Mapping[str, str] = MappingProxyType({})
BUILTIN = Path(__file__).parent / "profiles"


def read_profile(path: Path) -> LevelProfile:
    try:
        return parse_profile(path.read_text())
    except OSError as error:
        raise ProfileMissing(f"the profile cannot be read: {error.strerror}: {path.name}") from error
    except ProfileError as error:
        raise ProfileMissing(f"{path.name}: {error}") from error


def find_profile(part: WorkerGroupPart, pool_folder: Path, own: Path | None) -> Path:
    """The file of a group's profile; `own` is the one that the model brings.

    Raises:
        ProfileMissing: the group names a profile that does not exist, or none and the model brings none.
    """
    scheme, _, rest = part.profile.partition("://")
    if scheme == "builtin":
        path = BUILTIN / f"{rest}.json"
        if not path.is_file():
            names = ", ".join(sorted(file.stem for file in BUILTIN.glob("*.json")))
            raise ProfileMissing(f"workerGroups {part.name!r}: no builtin profile {rest!r}; there is {names}")
        return path
    if scheme == "file":
        return pool_folder / rest
    if own is None or not own.is_file():
        raise ProfileMissing(
            f"workerGroups {part.name!r}: no profile, and the model brings none; set profile: builtin://NAME or "
            "file://PATH, give --profile, or measure one with t2ictl profile"
        )
    return own


def build_groups(
    spec: PoolSpec,
    pool_folder: Path,
    own: Path | None,
    override: Path | None = None,
    workers: int | None = None,
    models: Mapping[str, str] = NO_MODELS,
) -> tuple[Group, ...]:
    """The pool's groups with their profiles. `workers` replaces their total and is spread over them in proportion.
    `models`: by group, which model of its profile the group holds in place of the one that the pool says.

    Raises:
        ProfileMissing: a profile is missing or invalid, or was measured of models that draw otherwise. Or it was
            measured without a model of the pool, or by another judge than that of another group.
    """
    counts = spec.group_sizes
    if workers is not None:
        counts = spread(workers, counts)
    groups: list[Group] = []
    for part in spec.worker_groups:
        path = override or find_profile(part, pool_folder, own)
        profile = read_profile(path)
        model = models.get(part.name, spec.group_models[part.name])
        try:
            profile.section(model)
            spec.check_profile(profile, ("", *(spec.models if not groups else spec.models.keys() & {model})))
        except ProfileError as error:
            raise ProfileMissing(f"workerGroups {part.name!r}: {path.name}: {error}") from error
        groups.append(Group(part.name, counts[part.name], profile, model))
    if differ := other_judge(group.profile.judge for group in groups):
        raise ProfileMissing(
            f"workerGroups: their profiles are by different judges ({differ}), whose losses cannot be weighed against "
            "each other; measure both with the same t2ictl profile --judge"
        )
    return tuple(groups)


def spread(total: int, counts: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` over the groups in proportion to `counts`, by largest remainder."""
    whole = sum(counts.values())
    shares = {name: total * count / whole for name, count in counts.items()}
    spread = {name: int(share) for name, share in shares.items()}
    # The groups with the largest fractional parts get one more each.
    for name in sorted(shares, key=lambda name: (spread[name] - shares[name], name))[: total - sum(spread.values())]:
        spread[name] += 1
    return spread
