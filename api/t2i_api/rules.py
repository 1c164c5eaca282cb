"""Rules of the pool document that span fields.

Each is also a CEL rule of the custom resource (`crds/`), so that the API server refuses what we would refuse; a test
runs the same documents through both.

Every message names the field and says what to do next.
"""

from collections.abc import Sequence

from t2i_policy.level import Ladder, Level

MAX_NAMES = 51  # POOL-GROUP names a StatefulSet, and its pods carry that name and a hash in a label of 63 characters
NETWORK_STORES = ("redis://", "rediss://")
RESERVED_GROUPS = ("gateway", "cache")  # the names of the pool's other parts


def refuse_repeated(field: str, names: Sequence[str]) -> None:
    """Entries of a list must differ.

    Raises:
        ValueError: a name is there twice.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{field} must be unique, but {repeated[0]!r} is there more than once: remove one")


def check_group_names(names: Sequence[str]) -> None:
    """Groups are told apart by name, and from the pool's other parts too.

    Raises:
        ValueError: a name is there twice, or reserved.
    """
    refuse_repeated("workerGroups", names)
    for name in names:
        if name in RESERVED_GROUPS:
            raise ValueError(f"workerGroups: {name!r} names another part of every pool: choose another name")


def check_children_names(pool: str, groups: Sequence[str]) -> None:
    """POOL-GROUP must be a valid name of a StatefulSet.

    Raises:
        ValueError: too long.
    """
    for group in groups:
        if len(pool) + len(group) > MAX_NAMES:
            raise ValueError(
                f"metadata.name and the name of worker group {group!r} have more than {MAX_NAMES} characters together: "
                "shorten one"
            )


def check_store(url: str, has_secret: bool) -> None:
    """A store on the network keeps its secrets out of its URL; only such a store has any.

    Raises:
        ValueError: it does not.
    """
    if url.startswith(NETWORK_STORES):
        if "@" in url:
            raise ValueError("storeUrl must not hold a user or a password: put them into the Secret of storeSecretRef")
    elif has_secret:
        raise ValueError("storeSecretRef is for a redis:// or rediss:// storeUrl: remove it, or set storeUrl")


def check_auto_mix(asked: Sequence[tuple[Level, int]]) -> None:
    """A mix that is planned has no numbers of its own.

    Raises:
        ValueError: it has.
    """
    if asked:
        raise ValueError("mix.workers is for mode Fixed: remove it, or set mix.mode to Fixed")


def check_fixed_mix(asked: Sequence[tuple[Level, int]], ladder: Ladder, total_workers: int) -> None:
    """A fixed mix places every worker of the pool at one of its levels.

    Raises:
        ValueError: an unknown level, a level twice, or another sum.
    """
    labels = [level.label(ladder.base_steps) for level, _ in asked]
    for (level, _), label in zip(asked, labels, strict=True):
        if level not in ladder.levels:
            raise ValueError(f"mix.workers names {label!r}, which is not among the levels: add it there")
    refuse_repeated("mix.workers", labels)
    placed = sum(workers for _, workers in asked)
    if placed != total_workers:
        raise ValueError(f"mix.workers sums to {placed}, but workerGroups have {total_workers}: make them equal")


def check_sharing(scope: str, shared: bool) -> None:
    """Latents of all tenants in one scope need consent.

    Raises:
        ValueError: scope Pool without it.
    """
    if scope == "Pool" and not shared:
        raise ValueError(
            "scope Pool lets tenants learn about each other's prompts: use Tenant, or also set sharedBetweenTenants to "
            "true"
        )


def check_security(authentication: str, gateway: tuple[bool, bool], inside: tuple[bool, bool]) -> None:
    """Which Secrets must be there: of the gateway (TLS, tokens), and inside the pool (gateways', workers').

    Raises:
        ValueError: one is missing, or would have no effect.
    """
    has_tls, has_tokens = gateway
    if authentication != "None" and not has_tls:
        raise ValueError(
            f"clientAuthentication {authentication} needs TLS: set gatewayTlsSecretName, or clientAuthentication "
            "to None"
        )
    if (authentication == "Token") != has_tokens:
        raise ValueError(
            "tokensSecretName and clientAuthentication Token belong together: set both, or remove tokensSecretName"
        )
    if inside[0] != inside[1]:
        raise ValueError("gatewayClientTlsSecretName and workerTlsSecretName belong together: set both, or neither")
