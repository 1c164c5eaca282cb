"""What the schema of a pool cannot say by types: list keys, and rules across fields in CEL.

Each rule here is also one of `t2i_api.rules`, `template_rules` or `levels.build_ladder`: the API server refuses
exactly the documents that `parse_pool` refuses. Rules that compare with the former object exist only here. Paths:
`spec.levels` is the field, `spec.workerGroups[]` the items of a list, "" the whole object.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from t2i_api.rules import MAX_NAMES, RESERVED_GROUPS
from t2i_api.template_rules import (
    FLAGS_MESSAGE,
    FOLDERS_MESSAGE,
    GATEWAY_OWNED,
    OWNED_FOLDERS,
    OWNED_VARIABLES,
    OWNED_VOLUMES,
    VARIABLES_MESSAGE,
    VOLUMES_MESSAGE,
    WORKER_OWNED,
    OwnedFields,
    containers_message,
)

BASE = "self.model.numInferenceSteps"  # in rules of the spec
STEPS = f"{{}}.?numInferenceSteps.orValue({BASE})"  # a level without a schedule runs the full one
TOTAL = "self.workerGroups.map(g, g.workers).sum()"
MIXED = "self.mix.workers.map(w, w.workers).sum()"
RESERVED = ", ".join(f"'{name}'" for name in RESERVED_GROUPS)


@dataclass(frozen=True, slots=True)
class CelRule:
    """One CEL rule. `message` says what to do next; `message_expression` says it with numbers; `field` is blamed."""

    rule: str
    message: str
    field: str = ""
    message_expression: str = ""


def _steps(name: str) -> str:
    return STEPS.format(name)


def _same(one: str, other: str) -> str:
    return f"{one}.skippedSteps == {other}.skippedSteps && {_steps(one)} == {_steps(other)}"


LEVELS = (
    CelRule(
        f"size(self.levels) == 0 || self.levels.exists(l, l.skippedSteps == 0 && {_steps('l')} == {BASE})",
        "levels must contain the exact one: add {skippedSteps: 0}",
        ".levels",
    ),
    CelRule(
        f"self.levels.all(a, self.levels.exists_one(b, {_same('a', 'b')}))",
        "levels must be unique: remove the one that is there more than once",
        ".levels",
    ),
    CelRule(
        f"self.levels.all(l, l.skippedSteps < {_steps('l')})",
        "skippedSteps of every level must be less than the numInferenceSteps it runs: skip fewer",
        ".levels",
    ),
    CelRule(
        f"self.levels.all(l, {_steps('l')} <= {BASE})",
        "no level may run longer than spec.model.numInferenceSteps: lower its numInferenceSteps",
        ".levels",
        f"'no level may run longer than spec.model.numInferenceSteps = %d: lower that level'.format([{BASE}])",
    ),
    CelRule(
        f"self.levels.all(l, l.skippedSteps == 0 || {_steps('l')} >= {BASE})",
        "a level that skips steps runs the full schedule, which cached latents belong to: leave out its skippedSteps "
        "or its numInferenceSteps",
        ".levels",
    ),
)

MIX = (
    CelRule(
        "self.mix.mode == 'Fixed' || size(self.mix.workers) == 0",
        "mix.workers is for mode Fixed: remove it, or set mix.mode to Fixed",
        ".mix",
    ),
    CelRule(
        f"self.mix.mode != 'Fixed' || {MIXED} == {TOTAL}",
        "with mode Fixed mix.workers must sum to the workers of all workerGroups: make them equal",
        ".mix",
        f"'mix.workers sums to %d, but workerGroups have %d: make them equal'.format([{MIXED}, {TOTAL}])",
    ),
    CelRule(
        # without levels the ladder is the default one: skips of 0, 10 ... 50 percent of the full schedule
        f"self.mix.workers.all(w, size(self.levels) > 0 ? self.levels.exists(l, {_same('l', 'w')}) : "
        f"{_steps('w')} == {BASE} && [0, 1, 2, 3, 4, 5].exists(t, {BASE} * t / 10 == w.skippedSteps))",
        "every entry of mix.workers must name one of the levels: add it to levels, or remove it here",
        ".mix",
    ),
    CelRule(
        f"self.mix.workers.all(a, self.mix.workers.exists_one(b, {_same('a', 'b')}))",
        "the levels in mix.workers must be unique: put the workers of a level into one entry",
        ".mix",
    ),
)

SECURITY = (
    CelRule(
        "self.clientAuthentication == 'None' || self.gatewayTlsSecretName != ''",
        "clientAuthentication Token and MutualTLS need TLS: set gatewayTlsSecretName, or clientAuthentication to None",
        ".gatewayTlsSecretName",
    ),
    CelRule(
        "(self.clientAuthentication == 'Token') == (self.tokensSecretName != '')",
        "tokensSecretName and clientAuthentication Token belong together: set both, or remove tokensSecretName",
        ".tokensSecretName",
    ),
    CelRule(
        "(self.gatewayClientTlsSecretName == '') == (self.workerTlsSecretName == '')",
        "gatewayClientTlsSecretName and workerTlsSecretName belong together: set both, or neither",
        ".workerTlsSecretName",
    ),
)


def _each(field: str, condition: str) -> str:
    return f"!has(self.{field}) || self.{field}.all(x, {condition})"


def _template(owned: OwnedFields) -> tuple[CelRule, ...]:
    """What a pod template may not change, from the table that our own check reads."""
    return (
        *(CelRule(f"!has(self.{field})", f"{field} {advice}", f".{field}") for field, advice in owned.fields.items()),
        CelRule(
            _each("containers", f"x.name != '{owned.container}'"), containers_message(owned.container), ".containers"
        ),
        CelRule(_each("env", f"!(x.name in {list(OWNED_VARIABLES)})"), VARIABLES_MESSAGE, ".env"),
        CelRule(_each("volumes", f"!(x.name in {list(OWNED_VOLUMES)})"), VOLUMES_MESSAGE, ".volumes"),
        CelRule(
            _each("volumeMounts", f"!x.mountPath.matches('{OWNED_FOLDERS}')"),
            FOLDERS_MESSAGE,
            ".volumeMounts",
        ),
        CelRule(
            _each("extraArgs", f"!({list(owned.flags)}.exists(f, x == f || x.startsWith(f + '=')))"),
            FLAGS_MESSAGE,
            ".extraArgs",
        ),
    )


RULES: Mapping[str, tuple[CelRule, ...]] = {
    "": (
        CelRule(
            f"self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) < {MAX_NAMES}",
            f"metadata.name must be up to {MAX_NAMES - 1} characters of a-z, 0-9 and -, begin with a letter and end "
            "with a letter or digit: Services carry it; choose another name",
        ),
        CelRule(
            f"self.spec.workerGroups.all(g, size(self.metadata.name) + size(g.name) <= {MAX_NAMES})",
            f"metadata.name and the name of a worker group may have {MAX_NAMES} characters together: shorten one",
            ".spec.workerGroups",
        ),
    ),
    "spec": (*LEVELS, *MIX),
    "spec.model": (
        CelRule(
            "self == oldSelf",
            "model is immutable: every worker keeps it warm, and profile and cached latents belong to it; create "
            "another pool for another model",
        ),
    ),
    "spec.cache": (
        CelRule(
            "self.scope != 'Pool' || self.sharedBetweenTenants",
            "scope Pool lets tenants learn about each other's prompts: use Tenant, or also set sharedBetweenTenants to "
            "true",
            ".scope",
        ),
        CelRule(
            "!self.storeUrl.matches('^rediss?://.*@')",
            "storeUrl must not hold a user or a password: put them into the Secret of storeSecretRef",
            ".storeUrl",
        ),
        CelRule(
            "!has(self.storeSecretRef) || self.storeUrl.matches('^rediss?://')",
            "storeSecretRef is for a redis:// or rediss:// storeUrl: remove it, or set storeUrl",
            ".storeSecretRef",
        ),
    ),
    "spec.security": SECURITY,
    "spec.gateway.template": _template(GATEWAY_OWNED),
    "spec.workerGroups[].template": _template(WORKER_OWNED),
    "spec.workerGroups[].name": (
        CelRule(
            f"!(self in [{RESERVED}])",
            f"{', '.join(RESERVED_GROUPS)} name other parts of every pool: choose another name",
        ),
    ),
    "spec.workerGroups[].engine": (
        CelRule(
            "self == oldSelf",
            "engine is immutable: the group's profile belongs to it; add another group and remove this one",
        ),
    ),
}

#: Lists whose items are told apart by keys (none: by themselves): the server refuses a key twice, and appliers may own
#: single items.
LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "spec.workerGroups": ("name",),
    "spec.gateway.tenants": ("name",),
    "spec.security.metricsNamespaces": (),
    "status.conditions": ("type",),
}
