"""The rules of the pool document that span fields, and its lists whose items must differ.

`parse_pool` checks them, and the schema of the custom resource is generated with them: the API server refuses exactly
the documents that we refuse, in the same words. Paths: `spec.levels` is the field, `spec.workerGroups[]` the items of
a list, "" the whole object.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from t2i_api.cache import CachePart
from t2i_api.names import MAX_NAMES
from t2i_api.pool import LevelPart, Pool, PoolSpec, default_levels
from t2i_api.rule import Numbers, PoolRule
from t2i_api.security import SecurityPart
from t2i_api.template_rules import GATEWAY_OWNED, WORKER_OWNED, template_rules

POOL_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
RESERVED_GROUPS = ("gateway", "cache")  # the names of the pool's other parts
NETWORK_STORE = "^rediss?://"

# In CEL, seen from the spec.
_BASE = "self.model.numInferenceSteps"
_TOTAL = "self.workerGroups.map(g, g.workers).sum()"
_MIXED = "self.mix.workers.map(w, w.workers).sum()"


def _steps(name: str) -> str:
    """In CEL, the schedule of a level; one without runs the full one."""
    return f"{name}.?numInferenceSteps.orValue({_BASE})"


def _same(one: str, other: str) -> str:
    """In CEL, whether two levels are one."""
    return f"{one}.skippedSteps == {other}.skippedSteps && {_steps(one)} == {_steps(other)}"


def _spelled(spec: PoolSpec, levels: Sequence[LevelPart]) -> list[LevelPart]:
    return [level.spelled_out(spec.model.num_inference_steps) for level in levels]


def _are_unique(spec: PoolSpec, levels: Sequence[LevelPart]) -> bool:
    return len(set(_spelled(spec, levels))) == len(levels)


def _mixed(spec: PoolSpec) -> int:
    return sum(part.workers for part in spec.mix.workers)


LEVELS = (
    PoolRule[PoolSpec](
        holds=lambda spec: not spec.levels or LevelPart().spelled_out(spec.base_steps) in _spelled(spec, spec.levels),
        cel=f"size(self.levels) == 0 || self.levels.exists(l, l.skippedSteps == 0 && {_steps('l')} == {_BASE})",
        message="levels must contain the exact one: add {skippedSteps: 0}",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: _are_unique(spec, spec.levels),
        cel=f"self.levels.all(a, self.levels.exists_one(b, {_same('a', 'b')}))",
        message="levels must be unique: remove the one that is there more than once",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(level.skipped_steps < level.steps(spec.base_steps) for level in spec.levels),
        cel=f"self.levels.all(l, l.skippedSteps < {_steps('l')})",
        message="skippedSteps of every level must be less than the numInferenceSteps it runs: skip fewer",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(level.steps(spec.base_steps) <= spec.base_steps for level in spec.levels),
        cel=f"self.levels.all(l, {_steps('l')} <= {_BASE})",
        message="no level may run longer than spec.model.numInferenceSteps: lower its numInferenceSteps",
        field=".levels",
        numbers=Numbers(
            "no level may run longer than spec.model.numInferenceSteps = %d: lower that level",
            lambda spec: (spec.base_steps,),
            (_BASE,),
        ),
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(
            level.skipped_steps == 0 or level.steps(spec.base_steps) >= spec.base_steps for level in spec.levels
        ),
        cel=f"self.levels.all(l, l.skippedSteps == 0 || {_steps('l')} >= {_BASE})",
        message="a level that skips steps runs the full schedule, which cached latents belong to: leave out its "
        "skippedSteps or its numInferenceSteps",
        field=".levels",
    ),
)

MIX = (
    PoolRule[PoolSpec](
        holds=lambda spec: spec.mix.mode == "Fixed" or not spec.mix.workers,
        cel="self.mix.mode == 'Fixed' || size(self.mix.workers) == 0",
        message="mix.workers is for mode Fixed: remove it, or set mix.mode to Fixed",
        field=".mix",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: spec.mix.mode != "Fixed" or _mixed(spec) == spec.total_workers,
        cel=f"self.mix.mode != 'Fixed' || {_MIXED} == {_TOTAL}",
        message="with mode Fixed mix.workers must sum to the workers of all workerGroups: make them equal",
        field=".mix",
        numbers=Numbers(
            "mix.workers sums to %d, but workerGroups have %d: make them equal",
            lambda spec: (_mixed(spec), spec.total_workers),
            (_MIXED, _TOTAL),
        ),
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: (
            {*_spelled(spec, spec.mix.workers)} <= {*_spelled(spec, spec.levels or default_levels(spec.base_steps))}
        ),
        # without levels the ladder is the default one: skips of 0, 10 ... 50 percent of the full schedule
        cel=f"self.mix.workers.all(w, size(self.levels) > 0 ? self.levels.exists(l, {_same('l', 'w')}) : "
        f"{_steps('w')} == {_BASE} && [0, 1, 2, 3, 4, 5].exists(t, {_BASE} * t / 10 == w.skippedSteps))",
        message="every entry of mix.workers must name one of the levels: add it to levels, or remove it here",
        field=".mix",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: _are_unique(spec, spec.mix.workers),
        cel=f"self.mix.workers.all(a, self.mix.workers.exists_one(b, {_same('a', 'b')}))",
        message="the levels in mix.workers must be unique: put the workers of a level into one entry",
        field=".mix",
    ),
)

CACHE = (
    PoolRule[CachePart](
        holds=lambda cache: cache.scope != "Pool" or cache.shared_between_tenants,
        cel="self.scope != 'Pool' || self.sharedBetweenTenants",
        message="scope Pool lets tenants learn about each other's prompts: use Tenant, or also set "
        "sharedBetweenTenants to true",
        field=".scope",
    ),
    PoolRule[CachePart](
        holds=lambda cache: not re.match(f"{NETWORK_STORE}.*@", cache.store_url),
        cel=f"!self.storeUrl.matches('{NETWORK_STORE}.*@')",
        message="storeUrl must not hold a user or a password: put them into the Secret of storeSecretRef",
        field=".storeUrl",
    ),
    PoolRule[CachePart](
        holds=lambda cache: cache.store_secret_ref is None or bool(re.match(NETWORK_STORE, cache.store_url)),
        cel=f"!has(self.storeSecretRef) || self.storeUrl.matches('{NETWORK_STORE}')",
        message="storeSecretRef is for a redis:// or rediss:// storeUrl: remove it, or set storeUrl",
        field=".storeSecretRef",
    ),
)

SECURITY = (
    PoolRule[SecurityPart](
        holds=lambda security: security.client_authentication == "None" or security.gateway_tls_secret_name != "",
        cel="self.clientAuthentication == 'None' || self.gatewayTlsSecretName != ''",
        message="clientAuthentication Token and MutualTLS need TLS: set gatewayTlsSecretName, or "
        "clientAuthentication to None",
        field=".gatewayTlsSecretName",
    ),
    PoolRule[SecurityPart](
        holds=lambda security: (security.client_authentication == "Token") == (security.tokens_secret_name != ""),
        cel="(self.clientAuthentication == 'Token') == (self.tokensSecretName != '')",
        message="tokensSecretName and clientAuthentication Token belong together: set both, or remove tokensSecretName",
        field=".tokensSecretName",
    ),
    PoolRule[SecurityPart](
        holds=lambda security: (
            (security.gateway_client_tls_secret_name == "") == (security.worker_tls_secret_name == "")
        ),
        cel="(self.gatewayClientTlsSecretName == '') == (self.workerTlsSecretName == '')",
        message="gatewayClientTlsSecretName and workerTlsSecretName belong together: set both, or neither",
        field=".workerTlsSecretName",
    ),
)

NAMES = (
    PoolRule[Pool](
        holds=lambda pool: bool(re.fullmatch(POOL_NAME, pool.metadata.name)) and len(pool.metadata.name) < MAX_NAMES,
        cel=f"self.metadata.name.matches('^{POOL_NAME}$') && size(self.metadata.name) < {MAX_NAMES}",
        message=f"metadata.name must be up to {MAX_NAMES - 1} characters of a-z, 0-9 and -, begin with a letter and "
        "end with a letter or digit: Services carry it; choose another name",
    ),
    PoolRule[Pool](
        holds=lambda pool: all(
            len(pool.metadata.name) + len(group.name) <= MAX_NAMES for group in pool.spec.worker_groups
        ),
        cel=f"self.spec.workerGroups.all(g, size(self.metadata.name) + size(g.name) <= {MAX_NAMES})",
        message=f"metadata.name and the name of a worker group may have {MAX_NAMES} characters together: shorten one",
        field=".spec.workerGroups",
    ),
)

RULES: Mapping[str, tuple[PoolRule[Any], ...]] = {
    "": NAMES,
    "spec": (*LEVELS, *MIX),
    "spec.model": (
        PoolRule(
            holds=None,
            cel="self == oldSelf",
            message="model is immutable: every worker keeps it warm, and profile and cached latents belong to it; "
            "create another pool for another model",
        ),
    ),
    "spec.cache": CACHE,
    "spec.security": SECURITY,
    "spec.gateway.template": template_rules(GATEWAY_OWNED),
    "spec.workerGroups[].template": template_rules(WORKER_OWNED),
    "spec.workerGroups[].name": (
        PoolRule[str](
            holds=lambda name: name not in RESERVED_GROUPS,
            cel=f"!(self in {list(RESERVED_GROUPS)})",
            message=f"{', '.join(RESERVED_GROUPS)} name other parts of every pool: choose another name",
        ),
    ),
    "spec.workerGroups[].engine": (
        PoolRule(
            holds=None,
            cel="self == oldSelf",
            message="engine is immutable: the group's profile belongs to it; add another group and remove this one",
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
