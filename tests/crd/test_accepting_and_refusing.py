"""The API server and our parser accept the same documents, and a refusal names the field and the next step.

Each case is a change of a valid pool. None of them reaches a controller: a bad pool is refused when it is written.
"""

from pathlib import Path

import pytest
import yaml

from t2i_testing_kit.crd.documents import REMOVED, Pools, changed, pool_document, refusal_by_us

EXAMPLES = Path(__file__).parents[2] / "examples"
FULL = {"skippedSteps": 0, "workers": 4}


def fixed(*workers: dict[str, int]) -> dict[str, object]:
    """A Fixed mix."""
    return {"mode": "Fixed", "workers": list(workers)}


IP_ADAPTER = {"name": "a", "kind": "IPAdapter", "source": "hf://acme/a", "weightName": "a.safetensors"}
FIXED = fixed({"skippedSteps": 0, "workers": 3}, {"skippedSteps": 10, "workers": 1})

TURBO = {"name": "turbo", "source": "builtin://scenes/distilled", "numInferenceSteps": 4}
TURBO_LEVEL = {"model": "turbo", "numInferenceSteps": 4}
#: The cpu group of one worker holds another model than the gpu group of three.
TWO_MODELS: dict[str, object] = {"spec.workerGroups.1.model": TURBO}
THIRD_GROUP = {"name": "more", "workers": 1}

ACCEPTED: dict[str, dict[str, object]] = {
    "as it is": {},
    "a group of another model": TWO_MODELS,
    "a model with all that it may say": {
        "spec.workerGroups.1.model": {
            **TURBO,
            "source": "hf://acme/turbo",
            "revision": "v1",
            "guidanceScalePercent": 100,
            "precision": "fp8",
            "adapters": [{"name": "a", "source": "hf://acme/a"}],
        }
    },
    "two groups of the same other model": {**TWO_MODELS, "spec.workerGroups.2": {**THIRD_GROUP, "model": TURBO}},
    "two other models": {**TWO_MODELS, "spec.workerGroups.2": {**THIRD_GROUP, "model": {**TURBO, "name": "nano.2"}}},
    "a model called as the end of its source's name": {"spec.workerGroups.1.model": {**TURBO, "name": "distilled"}},
    "a level of a guided model that leaves out guidance": {
        "spec.workerGroups.1.model": {**TURBO, "guidanceScalePercent": 300},
        "spec.levels.3": {**TURBO_LEVEL, "guidedSteps": 1},
    },
    "levels of another model": {
        **TWO_MODELS,
        "spec.levels.3": TURBO_LEVEL,
        "spec.levels.4": {"model": "turbo", "numInferenceSteps": 2},
        "spec.levels.5": {"numInferenceSteps": 4},
        "spec.levels.6": {"numInferenceSteps": 2},
    },
    "a model that runs longer than the pool's": {
        "spec.workerGroups.1.model": {**TURBO, "numInferenceSteps": 50},
        "spec.levels.3": {"model": "turbo", "numInferenceSteps": 30},
    },
    "a model of as many steps as the pool's": {
        "spec.workerGroups.1.model": {"name": "turbo", "source": "hf://acme/turbo"},
        "spec.levels.3": {"model": "turbo", "numInferenceSteps": 20},
    },
    "workers that may move": {**TWO_MODELS, "spec.mix": {"moves": "Reload"}},
    "a fixed mix of two models": {
        **TWO_MODELS,
        "spec.levels.3": TURBO_LEVEL,
        "spec.mix": fixed({**FULL, "workers": 3}, {**TURBO_LEVEL, "workers": 1}),
    },
    "the exact level with its steps spelled out": {"spec.levels.0": {"numInferenceSteps": 20}},
    "no levels: the default ladder": {"spec.levels": REMOVED},
    "an empty list of levels: the default ladder": {"spec.levels": []},
    "only the exact level": {"spec.levels": [{}]},
    "skipping all steps but one": {"spec.levels.1.skippedSteps": 19},
    "one step": {"spec.model.numInferenceSteps": 1, "spec.levels": [{}]},
    "a shorter schedule of one step": {"spec.levels.2.numInferenceSteps": 1},
    "a skip whose full schedule is spelled out": {"spec.levels.1.numInferenceSteps": 20},
    "a fixed mix": {"spec.mix": FIXED},
    "levels that differ in one coordinate": {
        "spec.levels.3": {"forecast": 2},
        "spec.levels.4": {"forecast": 3},
        "spec.levels.5": {"guidedSteps": 10},
        "spec.levels.6": {"solver": "unipc"},
        "spec.levels.7": {"solver": "dpm++-2m"},
        "spec.levels.8": {"skippedSteps": 10, "forecast": 2, "guidedSteps": 15, "solver": "unipc"},
        "spec.levels.9": {"computedSteps": [0, 1, 5, 9]},
        "spec.levels.10": {"computedSteps": [0, 1, 5, 10]},
        "spec.levels.11": {"skippedSteps": 10, "computedSteps": [10, 11, 19]},
    },
    "a fixed mix at a level that forecasts": {
        "spec.levels.3": {"forecast": 2},
        "spec.mix": fixed({**FULL, "workers": 3}, {"forecast": 2, "workers": 1}),
    },
    "a fixed mix with an empty level": {"spec.mix": fixed(FULL, {"skippedSteps": 10, "workers": 0})},
    "a fixed mix at a shorter schedule": {"spec.mix": fixed({"numInferenceSteps": 10, "workers": 4})},
    "a fixed mix with its schedule spelled out": {"spec.mix": fixed({**FULL, "numInferenceSteps": 20})},
    "a fixed mix of the default ladder": {"spec.mix": FIXED, "spec.levels": REMOVED},
    "an empty mix: Auto": {"spec.mix": {}},
    "a null where a default is": {"spec.slo": None, "spec.cache": {"scope": None}},
    "a pod template of anything": {"spec.workerGroups.0.template": {"nodeSelector": {"a": "b"}, "x": [None]}},
    "a gateway template of anything": {"spec.gateway.template": {"nodeSelector": {"a": "b"}, "x": [None], "y": None}},
    "a group of simulated workers": {"spec.workerGroups.0.engine": "simulated"},
    "a further size": {"spec.model.sizes": [{"width": 64, "height": 32}]},
    "a range of sizes": {
        "spec.model.sizes": [{"width": 32, "height": 48, "maxWidth": 96, "maxHeight": 64, "multipleOf": 16}]
    },
    "a range of widths alone": {"spec.model.sizes": [{"width": 32, "height": 48, "maxWidth": 96}]},
    "adapters from everywhere": {
        "spec.model.adapters": [
            {
                "name": "Pixel.Art_2",
                "source": "hf://acme/pixel@v1",
                "scalePercent": 0,
                "weightName": "pixel art.safetensors",
            },
            {"name": "b", "source": "file:///models/b.safetensors", "scalePercent": 200},
            {"name": "c", "source": "pvc://claim/c"},
        ]
    },
    "ControlNets": {
        "spec.model.components": [
            {"name": "canny", "kind": "ControlNet", "source": "hf://acme/canny"},
            {"name": "depth", "source": "pvc://claim/depth", "scalePercent": 50},
        ]
    },
    "IP-Adapters": {
        "spec.model.components": [
            {
                "name": "face",
                "kind": "IPAdapter",
                "source": "hf://acme/ip@v1",
                "weightName": "sdxl_models/ip-adapter_sdxl.safetensors",
                "imageEncoder": "models/image_encoder",
            },
            {"name": "plus", "kind": "IPAdapter", "source": "file:///ip", "weightName": "ip plus.safetensors"},
            {
                "name": "flux",
                "kind": "IPAdapter",
                "source": "hf://acme/flux-ip",
                "weightName": "ip_adapter.safetensors",
                "imageEncoder": "hf://acme/clip@v1",
            },
        ]
    },
    "audits": {"spec.quality": {"judge": "scenes", "template": {"nodeSelector": {"a": "b"}}}},
    "audits by a judge of the owner's own, with a profile of it": {
        "spec.quality": {"judge": "https://judge.example:8443/score", "auditPerMille": 1000, "recalibrate": True},
        "spec.profileRef": {"name": "measured"},
    },
    "audits of another model": {
        "spec.model.source": "hf://acme/sdxl",
        "spec.profileRef": {"name": "measured"},
        "spec.quality": {"judge": "pickscore=pvc://claim/pick"},
    },
    "audits of another embedded model": {
        "spec.model.source": "builtin://scenes-distilled",
        "spec.quality": {"judge": "scenes"},
    },
    "a group called auditor without audits": {"spec.workerGroups.1.name": "auditor"},
    "tenants of several weights": {"spec.gateway": {"tenants": [{"name": "a", "weight": 3}, {"name": "b"}]}},
    "names that fill the limit together": {"metadata.name": "a" * 48},
    "latents shared with consent": {"spec.cache": {"scope": "Pool", "sharedBetweenTenants": True}},
    "consent that is not used": {"spec.cache": {"sharedBetweenTenants": True}},
    "tokens over TLS": {
        "spec.security": {"clientAuthentication": "Token", "tokensSecretName": "t", "gatewayTlsSecretName": "g"}
    },
    "client certificates": {"spec.security": {"clientAuthentication": "MutualTLS", "gatewayTlsSecretName": "g"}},
    "TLS without authentication": {"spec.security": {"gatewayTlsSecretName": "g"}},
    "certificates inside only": {
        "spec.security": {"workerTlsSecretName": "w.x", "gatewayClientTlsSecretName": "c", "metricsNamespaces": ["m"]}
    },
}

#: change -> (what the API server must say, what we must say)
REFUSED: dict[str, tuple[dict[str, object], tuple[str, ...], str]] = {
    "no group of the pool's model": (
        {**TWO_MODELS, "spec.workerGroups.0.model": TURBO},
        ("spec.workerGroups:", "leave out the model of one group"),
        "spec.workerGroups: at least one group must hold spec.model",
    ),
    "two models of one name": (
        {**TWO_MODELS, "spec.workerGroups.2": {**THIRD_GROUP, "model": {**TURBO, "precision": "fp16"}}},
        ("spec.workerGroups:", "make the models equal, or name one otherwise"),
        "spec.workerGroups.2.model.precision: group more says 'fp16' and group cpu nothing, but both call their model "
        "'turbo': make the models equal, or name one otherwise",
    ),
    "two models of one name, alike but for what is spelled out": (
        {**TWO_MODELS, "spec.workerGroups.2": {**THIRD_GROUP, "model": {**TURBO, "precision": "bf16"}}},
        ("spec.workerGroups:", "make the models equal, or name one otherwise"),
        "spec.workerGroups.2.model.precision: group more says 'bf16' and group cpu nothing, but both call their model",
    ),
    "a level of a model that no group holds": (
        {**TWO_MODELS, "spec.levels.3": {**TURBO_LEVEL, "model": "other"}},
        ("spec.levels:", "name one, or leave it out for spec.model"),
        "spec.levels.3.model: no group of workerGroups holds a model called 'other'; there is turbo: name the model",
    ),
    "a level of a model in a pool of one": (
        {"spec.levels.3": TURBO_LEVEL},
        ("spec.levels:", "name one, or leave it out for spec.model"),
        "spec.levels.3.model: no group of workerGroups holds a model called 'turbo'; the pool has no model beside",
    ),
    "a level of a model without its steps": (
        {**TWO_MODELS, "spec.levels.3": {"model": "turbo"}},
        ("spec.levels:", "add its numInferenceSteps"),
        "spec.levels.3.numInferenceSteps: a level of model 'turbo' says how many steps it runs, 1 to 4: add it",
    ),
    "a level that runs longer than its model": (
        {**TWO_MODELS, "spec.levels.3": {**TURBO_LEVEL, "numInferenceSteps": 5}},
        ("spec.levels:", "lower the level's"),
        "spec.levels.3.numInferenceSteps: 5 is more than the 4 of model 'turbo': lower it",
    ),
    "a level that is called as the group, not as its model": (
        {**TWO_MODELS, "spec.levels.3": {**TURBO_LEVEL, "model": "cpu"}},
        ("spec.levels:", "called by its own name"),
        "spec.levels.3.model: no group of workerGroups holds a model called 'cpu'; there is turbo",
    ),
    "a level that leaves out guidance where there is none": (
        {
            "spec.workerGroups.1.model": {**TURBO, "guidanceScalePercent": 100},
            "spec.levels.3": {**TURBO_LEVEL, "guidedSteps": 1},
        },
        ("spec.levels:", "remove guidedSteps"),
        "spec.levels.3.guidedSteps: model 'turbo' draws without guidance (guidanceScalePercent 100)",
    ),
    "a level of another model that skips steps": (
        {**TWO_MODELS, "spec.levels.3": {**TURBO_LEVEL, "skippedSteps": 2}},
        ("spec.levels:", "leave out its skippedSteps"),
        "spec.levels: a level of another model skips no steps",
    ),
    "a level of another model twice": (
        {**TWO_MODELS, "spec.levels.3": TURBO_LEVEL, "spec.levels.4": TURBO_LEVEL},
        ("spec.levels:", "levels must be unique: remove"),
        "spec.levels: levels must be unique",
    ),
    "an exact level of another model alone": (
        {
            "spec.workerGroups.1.model": {**TURBO, "numInferenceSteps": 20},
            "spec.levels": [{"model": "turbo", "numInferenceSteps": 20}],
        },
        ("spec.levels:", "add {skippedSteps: 0}"),
        "levels must contain the exact one",
    ),
    "more levels than groups of models leave room for": (
        {
            **TWO_MODELS,
            "spec.model.numInferenceSteps": 50,
            "spec.levels": [{"skippedSteps": skip} for skip in range(24)],
        },
        ("spec.levels:", "name fewer levels, or merge groups"),
        "spec.levels: levels and groups with a model may be 24 together",
    ),
    "moves in a pool of one model": (
        {"spec.mix": {"moves": "Reload"}},
        ("spec.mix.moves:", "set moves to None, or give a group a model"),
        "spec.mix.moves: moves Reload is for mode Auto in pools whose workerGroups hold several models",
    ),
    "moves in a fixed mix": (
        {
            **TWO_MODELS,
            "spec.levels.3": TURBO_LEVEL,
            "spec.mix": {**fixed({**FULL, "workers": 3}, {**TURBO_LEVEL, "workers": 1}), "moves": "Reload"},
        },
        ("spec.mix.moves:", "set moves to None"),
        "spec.mix.moves: moves Reload is for mode Auto",
    ),
    "an unknown kind of move": (
        {**TWO_MODELS, "spec.mix": {"moves": "Restart"}},
        ("spec.mix.moves", 'supported values: "None", "Reload"'),
        "spec.mix.moves",
    ),
    "a fixed mix that puts workers at a model that they do not hold": (
        {
            **TWO_MODELS,
            "spec.levels.3": TURBO_LEVEL,
            "spec.mix": fixed({**FULL, "workers": 2}, {**TURBO_LEVEL, "workers": 2}),
        },
        ("spec.mix:", "make mix.workers fit the workerGroups of each model"),
        "spec.mix: in a Fixed mix the workers at levels of each model must be as many as hold it",
    ),
    "a fixed mix that leaves out a model": (
        {**TWO_MODELS, "spec.mix": fixed(FULL)},
        ("spec.mix:", "make mix.workers fit the workerGroups of each model"),
        "spec.mix: in a Fixed mix the workers at levels of each model must be as many as hold it",
    ),
    "a model called as the pool": (
        {"spec.workerGroups.1.model": {**TURBO, "name": "demo"}},
        ("spec.workerGroups:", "name the group's model otherwise"),
        "spec.workerGroups.1.model.name: clients call spec.model 'demo'",
    ),
    "a model called as the source of the pool's": (
        {"spec.workerGroups.1.model": {**TURBO, "name": "scenes"}},
        ("spec.workerGroups:", "name the group's model otherwise"),
        "spec.workerGroups.1.model.name: clients call spec.model 'scenes'",
    ),
    "a model called the reference": (
        {"spec.workerGroups.1.model": {**TURBO, "name": "reference"}},
        ("spec.workerGroups:", "name the group's model otherwise"),
        "spec.workerGroups.1.model.name: clients call spec.model 'reference'",
    ),
    "a model without a name": (
        {"spec.workerGroups.1.model": {"source": "hf://acme/turbo"}},
        ("spec.workerGroups[1].model.name: Required value",),
        "spec.workerGroups.1.model.name: Field required",
    ),
    "a model of an upper-case name": (
        {"spec.workerGroups.1.model": {**TURBO, "name": "Turbo"}},
        ("spec.workerGroups[1].model.name", "should match"),
        "spec.workerGroups.1.model.name",
    ),
    "a model with ControlNets": (
        {"spec.workerGroups.1.model": {**TURBO, "components": []}},
        ('unknown field "spec.workerGroups[1].model.components"',),
        "spec.workerGroups.1.model.components",
    ),
    "an adapter of a model named twice": (
        {
            "spec.workerGroups.1.model": {
                **TURBO,
                "adapters": [{"name": "a", "source": "hf://acme/a"}, {"name": "a", "source": "hf://acme/b"}],
            }
        },
        ("spec.workerGroups[1].model.adapters", "Duplicate value"),
        "adapters must be unique, but 'a' is there more than once",
    ),
    "no exact level": (
        {"spec.levels": [{"skippedSteps": 5}]},
        ("spec.levels:", "levels must contain the exact one: add {skippedSteps: 0}"),
        "levels must contain the exact one",
    ),
    "latents shared without consent": (
        {"spec.cache": {"scope": "Pool"}},
        ("spec.cache.scope:", "use Tenant, or also set sharedBetweenTenants to true"),
        "spec.cache.scope: scope Pool lets tenants learn about each other's prompts",
    ),
    "a playground without HTTP": (
        {"spec.gateway": {"http": "Disabled", "playground": "Enabled"}},
        ("spec.gateway.playground:", "set http to Enabled, or playground to Disabled"),
        "spec.gateway.playground: playground Enabled is a page that HTTP serves",
    ),
    "the embedded judge for another model": (
        {
            "spec.model.source": "hf://acme/sdxl",
            "spec.profileRef": {"name": "measured"},
            "spec.quality": {"judge": "scenes"},
        },
        ("spec.quality.judge:", "set the judge that measured your profile"),
        "spec.quality.judge: quality.judge scenes scores images of builtin:// models alone",
    ),
    "another judge than the builtin profile's": (
        {"spec.quality": {"judge": "pickscore"}},
        ("spec.quality.judge:", "set quality.judge to scenes"),
        "spec.quality.judge: the profile that comes with a builtin:// model was measured by the judge scenes",
    ),
    "a judge that is a program": (
        {"spec.quality": {"judge": "command://judge"}},
        ("spec.quality.judge",),
        "spec.quality.judge",
    ),
    "a judge at a port that is none": (
        {"spec.quality": {"judge": "http://judge:99999"}, "spec.profileRef": {"name": "measured"}},
        ("spec.quality.judge",),
        "spec.quality.judge",
    ),
    "more than all images audited": (
        {"spec.quality": {"judge": "scenes", "auditPerMille": 1001}},
        ("spec.quality.auditPerMille",),
        "spec.quality.auditPerMille",
    ),
    "a group called as the auditor": (
        {"spec.quality": {"judge": "scenes"}, "spec.workerGroups.1.name": "auditor"},
        ("spec.workerGroups:", "add a group of another name"),
        "spec.workerGroups: a worker group must not be called auditor beside quality",
    ),
    "tokens in clear": (
        {"spec.security": {"clientAuthentication": "Token", "tokensSecretName": "t"}},
        ("spec.security.gatewayTlsSecretName:", "need TLS: set gatewayTlsSecretName"),
        "spec.security.gatewayTlsSecretName: clientAuthentication Token and MutualTLS need TLS",
    ),
    "client certificates without TLS": (
        {"spec.security": {"clientAuthentication": "MutualTLS"}},
        ("spec.security.gatewayTlsSecretName:", "need TLS: set gatewayTlsSecretName"),
        "spec.security.gatewayTlsSecretName: clientAuthentication Token and MutualTLS need TLS",
    ),
    "an adapter named twice": (
        {"spec.model.adapters": [{"name": "a", "source": "hf://acme/a"}, {"name": "a", "source": "hf://acme/b"}]},
        ("spec.model.adapters", "Duplicate value"),
        "adapters must be unique, but 'a' is there more than once",
    ),
    "an adapter that is a pickle": (
        {"spec.model.adapters": [{"name": "a", "source": "hf://acme/a", "weightName": "a.bin"}]},
        ("spec.model.adapters[0].weightName",),
        "spec.model.adapters.0.weightName",
    ),
    "an adapter at three times its scale": (
        {"spec.model.adapters": [{"name": "a", "source": "hf://acme/a", "scalePercent": 300}]},
        ("spec.model.adapters[0].scalePercent",),
        "spec.model.adapters.0.scalePercent",
    ),
    "a builtin adapter": (
        {"spec.model.adapters": [{"name": "a", "source": "builtin://a"}]},
        ("spec.model.adapters[0].source",),
        "spec.model.adapters.0.source",
    ),
    "a component of an unknown kind": (
        {"spec.model.components": [{"name": "a", "kind": "T2IAdapter", "source": "hf://acme/a"}]},
        ("spec.model.components[0].kind",),
        "spec.model.components.0.kind",
    ),
    "an IP-Adapter without a file": (
        {"spec.model.components": [{"name": "a", "kind": "IPAdapter", "source": "hf://acme/a"}]},
        ("spec.model.components[0].weightName:", "name the file in its source"),
        "weightName and kind IPAdapter belong together",
    ),
    "a file of a ControlNet": (
        {"spec.model.components": [{"name": "a", "source": "hf://acme/a", "weightName": "a.safetensors"}]},
        ("spec.model.components[0].weightName:", "or remove weightName"),
        "weightName and kind IPAdapter belong together",
    ),
    "an image encoder of a ControlNet": (
        {"spec.model.components": [{"name": "a", "source": "hf://acme/a", "imageEncoder": "image_encoder"}]},
        ("spec.model.components[0].imageEncoder:", "remove it"),
        "imageEncoder is for kind IPAdapter",
    ),
    "an IP-Adapter outside its source": (
        {"spec.model.components": [{**IP_ADAPTER, "weightName": "../secret/a.safetensors"}]},
        ("spec.model.components[0].weightName",),
        "spec.model.components.0.weightName",
    ),
    "an IP-Adapter that is a pickle": (
        {"spec.model.components": [{**IP_ADAPTER, "weightName": "models/ip-adapter_sd15.bin"}]},
        ("spec.model.components[0].weightName",),
        "spec.model.components.0.weightName",
    ),
    "Token without tokens": (
        {"spec.security": {"clientAuthentication": "Token", "gatewayTlsSecretName": "g"}},
        ("spec.security.tokensSecretName:", "set both, or remove tokensSecretName"),
        "tokensSecretName and clientAuthentication Token belong together",
    ),
    "tokens that nobody asks for": (
        {"spec.security": {"tokensSecretName": "t", "gatewayTlsSecretName": "g"}},
        ("spec.security.tokensSecretName:", "set both, or remove tokensSecretName"),
        "tokensSecretName and clientAuthentication Token belong together",
    ),
    "certificates on one side only": (
        {"spec.security": {"workerTlsSecretName": "w"}},
        ("spec.security.workerTlsSecretName:", "set both, or neither"),
        "gatewayClientTlsSecretName and workerTlsSecretName belong together",
    ),
    "a namespace twice": (
        {"spec.security": {"metricsNamespaces": ["m", "m"]}},
        ("spec.security.metricsNamespaces[1]: Duplicate value",),
        "metricsNamespaces must be unique",
    ),
    "an unknown way to authenticate": (
        {"spec.security": {"clientAuthentication": "Basic"}},
        ("spec.security.clientAuthentication: Unsupported value",),
        "spec.security.clientAuthentication",
    ),
    "an exact level of another schedule": (
        {"spec.levels": [{"numInferenceSteps": 10}]},
        ("spec.levels:", "add {skippedSteps: 0}"),
        "levels must contain the exact one",
    ),
    "a level twice": (
        {"spec.levels.3": {"skippedSteps": 10}},
        ("spec.levels:", "levels must be unique: remove"),
        "spec.levels: levels must be unique: remove the one that is there more than once",
    ),
    "a level twice, once spelled out": (
        {"spec.levels.3": {"numInferenceSteps": 20}},
        ("spec.levels:", "levels must be unique: remove"),
        "spec.levels: levels must be unique: remove the one that is there more than once",
    ),
    "skipping every step": (
        {"spec.levels.1.skippedSteps": 20},
        ("spec.levels:", "skippedSteps of every level must be less than the numInferenceSteps it runs: skip fewer"),
        "skippedSteps of every level must be less than the numInferenceSteps it runs: skip fewer",
    ),
    "a level that runs longer than the model": (
        {"spec.levels.2.numInferenceSteps": 21},
        ("spec.levels:", "may run longer than spec.model.numInferenceSteps = 20: lower that level"),
        "no level may run longer than spec.model.numInferenceSteps = 20: lower that level",
    ),
    "a skip on a shorter schedule": (
        {"spec.levels.2.skippedSteps": 5},
        ("spec.levels:", "leave out its skippedSteps or its numInferenceSteps"),
        "a level that skips steps runs the full schedule, which cached latents belong to",
    ),
    "an exact level that forecasts": (
        {"spec.levels.0.forecast": 2},
        ("spec.levels:", "add {skippedSteps: 0}"),
        "levels must contain the exact one",
    ),
    "a solver twice": (
        {"spec.levels.3": {"solver": "unipc"}, "spec.levels.4": {"solver": "unipc", "numInferenceSteps": 20}},
        ("spec.levels:", "levels must be unique: remove"),
        "spec.levels: levels must be unique: remove the one that is there more than once",
    ),
    "a forecast of four steps": (
        {"spec.levels.3": {"skippedSteps": 16, "forecast": 2}},
        ("spec.levels:", "a level with forecast runs at least 5 steps"),
        "a level with forecast runs at least 5 steps",
    ),
    "computed steps without the first two": (
        {"spec.levels.3": {"computedSteps": [0, 2, 4]}},
        ("spec.levels:", "computedSteps of every level must rise, begin with the first two"),
        "computedSteps of every level must rise, begin with the first two",
    ),
    "computed steps twice": (
        {"spec.levels.3": {"computedSteps": [0, 1, 4, 4]}},
        ("spec.levels:", "computedSteps of every level must rise"),
        "computedSteps of every level must rise",
    ),
    "computed steps beyond the schedule": (
        {"spec.levels.3": {"computedSteps": [0, 1, 20]}},
        ("spec.levels:", "computedSteps of every level must rise"),
        "computedSteps of every level must rise",
    ),
    "computed steps of a short end": (
        {"spec.levels.3": {"skippedSteps": 16, "computedSteps": [16, 17]}},
        ("spec.levels:", "a level with computedSteps runs at least 5 steps"),
        "a level with computedSteps runs at least 5 steps",
    ),
    "forecast and computed steps": (
        {"spec.levels.3": {"forecast": 2, "computedSteps": [0, 1, 4]}},
        ("spec.levels:", "a level has forecast or computedSteps, not both"),
        "a level has forecast or computedSteps, not both",
    ),
    "the same computed steps twice": (
        {"spec.levels.3": {"computedSteps": [0, 1, 4]}, "spec.levels.4": {"computedSteps": [0, 1, 4]}},
        ("spec.levels:", "levels must be unique: remove"),
        "spec.levels: levels must be unique: remove the one that is there more than once",
    ),
    "a guidance of all steps": (
        {"spec.levels.3": {"guidedSteps": 20}},
        ("spec.levels:", "guidedSteps of every level must lie between"),
        "guidedSteps of every level must lie between its skippedSteps and its numInferenceSteps",
    ),
    "a guidance that ends in the skip": (
        {"spec.levels.3": {"skippedSteps": 10, "guidedSteps": 10}},
        ("spec.levels:", "guidedSteps of every level must lie between"),
        "guidedSteps of every level must lie between its skippedSteps and its numInferenceSteps",
    ),
    "a solver that draws noise": (
        {"spec.levels.3": {"solver": "euler-a"}},
        ("spec.levels[3].solver", "dpm++-2m"),
        "spec.levels.3.solver",
    ),
    "a negative skip": (
        {"spec.levels.1.skippedSteps": -1},
        ("spec.levels[1].skippedSteps", "greater than or equal to 0"),
        "spec.levels.1.skippedSteps",
    ),
    "too many levels": (
        {"spec.levels": [{"skippedSteps": skip} for skip in range(33)], "spec.model.numInferenceSteps": 50},
        ("spec.levels", "must have at most 32 items"),
        "spec.levels: Tuple should have at most 32 items",
    ),
    "a fixed mix that leaves workers over": (
        {"spec.mix": fixed({"workers": 3})},
        ("spec.mix:", "mix.workers sums to 3, but workerGroups have 4: make them equal"),
        "mix.workers sums to 3, but workerGroups have 4: make them equal",
    ),
    "a fixed mix of more workers than there are": (
        {"spec.mix": fixed({"workers": 3}, {"skippedSteps": 10, "workers": 2})},
        ("spec.mix:", "mix.workers sums to 5, but workerGroups have 4: make them equal"),
        "mix.workers sums to 5",
    ),
    "a fixed mix without numbers": (
        {"spec.mix": {"mode": "Fixed"}},
        ("spec.mix:", "mix.workers sums to 0, but workerGroups have 4: make them equal"),
        "mix.workers sums to 0",
    ),
    "a fixed mix that a resized group no longer fits": (
        {"spec.mix": FIXED, "spec.workerGroups.0.workers": 4},
        ("spec.mix:", "mix.workers sums to 4, but workerGroups have 5: make them equal"),
        "workerGroups have 5",
    ),
    "a fixed mix at an unknown level": (
        {"spec.mix": fixed({"workers": 3}, {"skippedSteps": 5, "workers": 1})},
        ("spec.mix:", "must name one of the levels: add it to levels, or remove it here"),
        "spec.mix: every entry of mix.workers must name one of the levels",
    ),
    "a fixed mix at an unknown level of the default ladder": (
        {"spec.mix": fixed({"workers": 3}, {"skippedSteps": 5, "workers": 1}), "spec.levels": REMOVED},
        ("spec.mix:", "must name one of the levels"),
        "spec.mix: every entry of mix.workers must name one of the levels",
    ),
    "a fixed mix with a level twice": (
        {"spec.mix": fixed({"workers": 3}, {"numInferenceSteps": 20, "workers": 1})},
        ("spec.mix:", "mix.workers must be unique: put the workers of a level into one entry"),
        "spec.mix: the levels in mix.workers must be unique",
    ),
    "numbers in a mix that is planned": (
        {"spec.mix": {"workers": [FULL]}},
        ("spec.mix:", "mix.workers is for mode Fixed: remove it, or set mix.mode to Fixed"),
        "mix.workers is for mode Fixed",
    ),
    "an unknown mode": (
        {"spec.mix": {"mode": "Manual"}},
        ("spec.mix.mode", 'supported values: "Auto", "Fixed"'),
        "spec.mix.mode",
    ),
    "a group twice": (
        {"spec.workerGroups.1.name": "gpu"},
        ("spec.workerGroups[1]: Duplicate value",),
        "workerGroups must be unique",
    ),
    "no groups": ({"spec.workerGroups": []}, ("spec.workerGroups", "at least 1 items"), "spec.workerGroups"),
    "a group without workers": (
        {"spec.workerGroups.0.workers": 0},
        ("spec.workerGroups[0].workers", "greater than or equal to 1"),
        "spec.workerGroups.0.workers",
    ),
    "a group with the name of another part": (
        {"spec.workerGroups.0.name": "gateway"},
        ("spec.workerGroups[0].name", "name other parts of every pool: choose another name"),
        "spec.workerGroups.0.name: gateway, cache name other parts of every pool: choose another name",
    ),
    "an upper-case group": (
        {"spec.workerGroups.0.name": "GPU"},
        ("spec.workerGroups[0].name", "should match"),
        "spec.workerGroups.0.name",
    ),
    "a pool with a dot in its name": (
        {"metadata.name": "demo.v2"},
        ("metadata.name must be up to 50 characters", "choose another name"),
        "metadata.name must be up to 50 characters",
    ),
    "a pool whose name begins with a digit": (
        {"metadata.name": "2demo"},
        ("metadata.name must be up to 50 characters", "begin with a letter"),
        "metadata.name",
    ),
    "a pool with a long name": (
        {"metadata.name": "a" * 51},
        ("metadata.name must be up to 50 characters",),
        "metadata.name",
    ),
    "names that are too long together": (
        {"metadata.name": "a" * 49},
        ("spec.workerGroups", "may have 51 characters together: shorten one"),
        "metadata.name and the name of a worker group may have 51 characters together: shorten one",
    ),
    "a tenant twice": (
        {"spec.gateway": {"tenants": [{"name": "a"}, {"name": "a"}]}},
        ("spec.gateway.tenants[1]: Duplicate value",),
        "tenants must be unique",
    ),
    "a tenant with two rate limits": (
        {"spec.gateway": {"rateLimits": {"tenants": [{"name": "a"}, {"name": "a"}]}}},
        ("spec.gateway.rateLimits.tenants[1]: Duplicate value",),
        "tenants must be unique",
    ),
    "a rate of nothing": (
        {"spec.gateway": {"rateLimits": {"requestsPerMinute": 0}}},
        ("spec.gateway.rateLimits.requestsPerMinute", "greater than or equal to 1"),
        "spec.gateway.rateLimits.requestsPerMinute",
    ),
    "a classifier with a password in its address": (
        {"spec.safety": {"prompt": {"url": "https://user:secret@host/"}}},
        ("spec.safety.prompt.url", "should match"),
        "spec.safety.prompt.url",
    ),
    "a classifier at a port that is none": (
        {"spec.safety": {"image": {"url": "https://host:65536"}}},
        ("spec.safety.image.url", "should match"),
        "spec.safety.image.url",
    ),
    "a classifier without an address": (
        {"spec.safety": {"prompt": {"failOpen": True}}},
        ("spec.safety.prompt.url: Required value",),
        "spec.safety.prompt.url: Field required",
    ),
    "prompts in files without metadata": (
        {"spec.provenance": {"metadata": False, "prompt": True}},
        ("spec.provenance", "set metadata to true, or prompt to false"),
        "spec.provenance.prompt: prompt needs metadata",
    ),
    "a tenant without a name": (
        {"spec.gateway": {"tenants": [{"name": ""}]}},
        ("spec.gateway.tenants[0].name",),
        "spec.gateway.tenants.0.name",
    ),
    "a source without scheme": (
        {"spec.model.source": "scenes"},
        ("spec.model.source", "should match"),
        "spec.model.source",
    ),
    "no model": ({"spec.model": REMOVED}, ("spec.model: Required value",), "spec.model: Field required"),
    "no spec": ({"spec": REMOVED}, ("spec: Required value",), "spec: Field required"),
    "a size that is not a multiple of 8": (
        {"spec.model.sizes": [{"width": 64, "height": 44}]},
        ("spec.model.sizes[0].height", "multiple of 8"),
        "spec.model.sizes.0.height",
    ),
    "a range that ends before it begins": (
        {"spec.model.sizes": [{"width": 64, "height": 48, "maxHeight": 40}]},
        ("spec.model.sizes[0]", "must not be less than width and height: raise them"),
        "spec.model.sizes.0: maxWidth and maxHeight must not be less than width and height",
    ),
    "a range whose end its multiple does not meet": (
        {"spec.model.sizes": [{"width": 32, "height": 32, "maxWidth": 72, "multipleOf": 16}]},
        ("spec.model.sizes[0]", "must be multiples of multipleOf: change them"),
        "spec.model.sizes.0: width, height, maxWidth and maxHeight must be multiples of multipleOf",
    ),
    "a size without a height": (
        {"spec.model.sizes": [{"width": 32}]},
        ("spec.model.sizes[0].height: Required value",),
        "spec.model.sizes.0.height: Field required",
    ),
    "a width that is not a multiple of 8": (
        {"spec.model.width": 47},
        ("spec.model.width", "multiple of 8"),
        "spec.model.width",
    ),
    "a quoted number": (
        {"spec.gateway.replicas": "3"},
        ("spec.gateway.replicas",),
        "spec.gateway.replicas: Input should be a valid integer",
    ),
    "a whole number with a fraction of 0": (
        {"spec.gateway.replicas": 2.0},
        ("spec.gateway.replicas", "must be written without a fraction: 5, not 5.0"),
        "spec.gateway.replicas: Input should be a valid integer",
    ),
    "half a gateway": ({"spec.gateway.replicas": 1.5}, ("spec.gateway.replicas",), "spec.gateway.replicas"),
    "a yes for a number": (
        {"spec.gateway.replicas": True},
        ("spec.gateway.replicas",),
        "spec.gateway.replicas: Input should be a valid integer",
    ),
    "an unknown field": ({"spec.replicas": 3}, ('unknown field "spec.replicas"',), "spec.replicas"),
    "an unknown field in a group": (
        {"spec.workerGroups.0.replicas": 3},
        ('unknown field "spec.workerGroups[0].replicas"',),
        "spec.workerGroups.0.replicas",
    ),
    "a field in Python's spelling": (
        {"spec.worker_groups": []},
        ('unknown field "spec.worker_groups"',),
        "spec.worker_groups",
    ),
    "an unknown field that is null": ({"spec.replicas": None}, ('unknown field "spec.replicas"',), "spec.replicas"),
}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("pool*.yaml")), ids=lambda path: path.name)
def test_examples_are_accepted(pools: Pools, path: Path) -> None:
    """What runs on a laptop can be applied to a cluster as it is."""
    answer = pools.try_create(yaml.safe_load(path.read_text()))
    assert answer.ok, answer.message


@pytest.mark.parametrize("case", ACCEPTED)
def test_both_accept(pools: Pools, case: str) -> None:
    """What is valid is valid for both."""
    document = changed(pool_document(), ACCEPTED[case])
    assert refusal_by_us(document) is None
    answer = pools.try_create(document)
    assert answer.ok, answer.message


@pytest.mark.parametrize("case", REFUSED)
def test_both_refuse_and_say_why(pools: Pools, case: str) -> None:
    """What is wrong is refused by both, and each names the field; rules say what to do."""
    changes, server_says, we_say = REFUSED[case]
    document = changed(pool_document(), changes)
    assert we_say in (refusal_by_us(document) or "")
    answer = pools.try_create(document)
    assert answer.status in (400, 422), answer.body
    for said in server_says:
        assert said in answer.message
