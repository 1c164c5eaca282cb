"""The rules of the pool document that span fields, and its lists whose items must differ.

`parse_pool` checks them, and the schema of the custom resource is generated with them: the API server refuses exactly
the documents that we refuse, in the same words. Paths: `spec.levels` is the field, `spec.workerGroups[]` the items of
a list, "" the whole object.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.alias_generators import to_camel

from t2i_api.audit_rules import AUDITS
from t2i_api.cache import CachePart
from t2i_api.gateway import GatewayPart
from t2i_api.levels import LevelPart, default_levels
from t2i_api.model_rules import COMPONENTS, GROUP_MODEL, MODELS, NAMES_OF_MODELS, SIZES
from t2i_api.names import MAX_NAMES
from t2i_api.pool import Pool, PoolSpec
from t2i_api.provenance import ProvenancePart
from t2i_api.rule import Numbers, PoolRule
from t2i_api.security import SecurityPart
from t2i_api.template_rules import AUDITOR_OWNED, GATEWAY_OWNED, WORKER_OWNED, template_rules
from t2i_policy.level import COMPUTED_FIRST, LEAST_FORECAST_STEPS, SOLVERS

POOL_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"
RESERVED_GROUPS = ("gateway", "cache")  # the names of the pool's other parts
NETWORK_STORE = "^rediss?://"

#: The coordinates of a level beside its steps.
_FURTHER = [to_camel(name) for name in LevelPart.model_fields if name not in ("skipped_steps", "num_inference_steps")]
# In CEL, seen from the spec.
_BASE = "self.model.numInferenceSteps"
_TOTAL = "self.workerGroups.map(g, g.workers).sum()"
_MIXED = "self.mix.workers.map(w, w.workers).sum()"


def _steps(name: str) -> str:
    """In CEL, the schedule of a level; one without runs the full one."""
    return f"{name}.?numInferenceSteps.orValue({_BASE})"


def _guided(name: str) -> str:
    """In CEL, the steps of a level with guidance: all of them, if it says nothing."""
    return f"{name}.?guidedSteps.orValue(0)"


def _forecast(name: str) -> str:
    return f"{name}.?forecast.orValue(0)"


def _solver(name: str) -> str:
    """In CEL, a number for each solver: to compare two strings costs the API server far more."""
    first, _ = SOLVERS
    return f"(!has({name}.solver) ? 0 : {name}.solver == '{first}' ? 1 : 2)"


def _same(one: str, other: str) -> str:
    """In CEL, whether two levels are one."""
    pairs = (
        (f"{one}.skippedSteps", f"{other}.skippedSteps"),
        (_steps(one), _steps(other)),
        (_forecast(one), _forecast(other)),
        (_guided(one), _guided(other)),
        (_solver(one), _solver(other)),
    )
    has_one, has_other = f"has({one}.computedSteps)", f"has({other}.computedSteps)"
    computed = f"{has_one} == {has_other} && (!{has_one} || {one}.computedSteps == {other}.computedSteps)"
    model = f"has({one}.model) == has({other}.model) && (!has({one}.model) || {one}.model == {other}.model)"
    return " && ".join([*(f"{mine} == {theirs}" for mine, theirs in pairs), computed, model])


def _plain(name: str) -> str:
    """In CEL, whether a level has no coordinate beside its steps."""
    return " && ".join(f"!has({name}.{further})" for further in _FURTHER)


def _spelled(spec: PoolSpec, levels: Sequence[LevelPart]) -> list[LevelPart]:
    return [level.spelled_out(spec.model.num_inference_steps) for level in levels]


def _are_unique(spec: PoolSpec, levels: Sequence[LevelPart]) -> bool:
    return len(set(_spelled(spec, levels))) == len(levels)


def _computes_well(level: LevelPart, base_steps: int) -> bool:
    computed, first = level.computed_steps, level.skipped_steps
    if computed is None:
        return True
    rises = list(computed) == sorted({*computed})
    return rises and computed[:COMPUTED_FIRST] == (first, first + 1) and computed[-1] < level.steps(base_steps)


def _mixed(spec: PoolSpec) -> int:
    return sum(part.workers for part in spec.mix.workers)


LEVELS = (
    PoolRule[PoolSpec](
        holds=lambda spec: not spec.levels or LevelPart().spelled_out(spec.base_steps) in _spelled(spec, spec.levels),
        cel=f"size(self.levels) == 0 || self.levels.exists(l, l.skippedSteps == 0 && {_steps('l')} == {_BASE} && "
        f"{_plain('l')})",
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
        holds=lambda spec: all(level.steps(spec.base_steps) <= spec.base_steps or level.model for level in spec.levels),
        cel=f"self.levels.all(l, has(l.model) || {_steps('l')} <= {_BASE})",
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
    PoolRule[PoolSpec](
        holds=lambda spec: all(
            level.forecast is None or level.steps(spec.base_steps) - level.skipped_steps >= LEAST_FORECAST_STEPS
            for level in spec.levels
        ),
        cel=f"self.levels.all(l, !has(l.forecast) || {_steps('l')} - l.skippedSteps >= {LEAST_FORECAST_STEPS})",
        message=f"a level with forecast runs at least {LEAST_FORECAST_STEPS} steps, as each of fewer decides too much: "
        "skip fewer, or leave out its forecast",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(
            level.computed_steps is None or level.steps(spec.base_steps) - level.skipped_steps >= LEAST_FORECAST_STEPS
            for level in spec.levels
        ),
        cel=f"self.levels.all(l, !has(l.computedSteps) || {_steps('l')} - l.skippedSteps >= {LEAST_FORECAST_STEPS})",
        message=f"a level with computedSteps runs at least {LEAST_FORECAST_STEPS} steps, as each of fewer decides too "
        "much: skip fewer, or leave them out",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(level.computed_steps is None or level.forecast is None for level in spec.levels),
        cel="self.levels.all(l, !has(l.computedSteps) || !has(l.forecast))",
        message="a level has forecast or computedSteps, not both: leave out one",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(_computes_well(level, spec.base_steps) for level in spec.levels),
        cel="self.levels.all(l, !has(l.computedSteps) || (l.computedSteps.isSorted() && "
        "l.computedSteps.all(s, l.computedSteps.exists_one(t, s == t)) && "
        "l.computedSteps[0] == l.skippedSteps && l.computedSteps[1] == l.skippedSteps + 1 && "
        f"l.computedSteps[size(l.computedSteps) - 1] < {_steps('l')}))",
        message="computedSteps of every level must rise, begin with the first two that it runs, and lie below its "
        "numInferenceSteps: change them",
        field=".levels",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: all(
            level.guided_steps is None or level.skipped_steps < level.guided_steps < level.steps(spec.base_steps)
            for level in spec.levels
        ),
        cel=f"self.levels.all(l, !has(l.guidedSteps) || (l.skippedSteps < {_guided('l')} && "
        f"{_guided('l')} < {_steps('l')}))",
        message="guidedSteps of every level must lie between its skippedSteps and its numInferenceSteps: change it, "
        "or leave it out to guide all steps",
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
        f"{_plain('w')} && {_steps('w')} == {_BASE} && "
        f"[0, 1, 2, 3, 4, 5].exists(t, {_BASE} * t / 10 == w.skippedSteps))",
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

GATEWAY = (
    PoolRule[GatewayPart](
        holds=lambda gateway: gateway.playground == "Disabled" or gateway.http == "Enabled",
        cel="self.playground == 'Disabled' || self.http == 'Enabled'",
        message="playground Enabled is a page that HTTP serves: set http to Enabled, or playground to Disabled",
        field=".playground",
    ),
    PoolRule[GatewayPart](
        holds=lambda gateway: gateway.http == "Enabled" or not gateway.is_led_to,
        cel="self.http == 'Enabled' || (!has(self.route) && !has(self.ingress))",
        message="route and ingress lead to the HTTP door: set http to Enabled, or remove them",
        field=".http",
    ),
    PoolRule[GatewayPart](
        holds=lambda gateway: gateway.http == "Enabled" or gateway.results is None,
        cel="self.http == 'Enabled' || !has(self.results)",
        message="results are for requests of the HTTP door: set http to Enabled, or remove results",
        field=".results",
    ),
)

OUTSIDE = PoolRule[PoolSpec](
    holds=lambda spec: spec.security.client_authentication != "MutualTLS" or not spec.gateway.is_led_to,
    cel="self.security.clientAuthentication != 'MutualTLS' || (!has(self.gateway.route) && !has(self.gateway.ingress))",
    message="behind gateway.route or gateway.ingress a proxy ends TLS, so client certificates do not arrive: set "
    "security.clientAuthentication to Token, or remove them",
    field=".gateway",
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

PROVENANCE = (
    PoolRule[ProvenancePart](
        holds=lambda provenance: provenance.metadata or not provenance.prompt,
        cel="self.metadata || !self.prompt",
        message="prompt needs metadata, as that is where prompts go: set metadata to true, or prompt to false",
        field=".prompt",
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
    "": (*NAMES, NAMES_OF_MODELS),
    "spec": (*LEVELS, *MIX, OUTSIDE, *AUDITS, *MODELS),
    "spec.model": (
        PoolRule(
            holds=None,
            cel="self == oldSelf",
            message="model is immutable: every worker keeps it warm, and profile and cached latents belong to it; "
            "create another pool for another model",
        ),
    ),
    "spec.model.sizes[]": SIZES,
    "spec.model.components[]": COMPONENTS,
    "spec.cache": CACHE,
    "spec.security": SECURITY,
    "spec.gateway": GATEWAY,
    "spec.provenance": PROVENANCE,
    "spec.gateway.template": template_rules(GATEWAY_OWNED),
    "spec.quality.template": template_rules(AUDITOR_OWNED),
    "spec.workerGroups[]": (GROUP_MODEL,),
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
    "spec.model.adapters": ("name",),
    "spec.model.components": ("name",),
    "spec.workerGroups[].model.adapters": ("name",),
    "spec.gateway.tenants": ("name",),
    "spec.gateway.rateLimits.tenants": ("name",),
    "spec.gateway.qualities": ("name",),
    "spec.gateway.route.hostnames": (),
    "spec.gateway.ingress.annotations": ("name",),
    "spec.security.metricsNamespaces": (),
    "status.conditions": ("type",),
}
