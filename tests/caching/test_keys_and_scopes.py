"""Keys and scopes: a latent of another model or tenant is never addressed, and no id leaves the store's folder."""

from dataclasses import asdict, fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_cache.keys import LatentKey, ModelKey, model_fingerprint
from t2i_cache.scope import scope_id
from t2i_policy.image_size import ImageSize
from t2i_runtime.drawing import PLAIN, Drawing, ScaledAdapter
from t2i_worker.jobs import AdapterFacts

MODEL = ModelKey("sha256:ab", "flow-euler", 20, 512, 768, 4500, "float16")
OTHER_VALUES: dict[str, Any] = {
    "model_digest": "sha256:ac",
    "noise_scheduler": "ddim",
    "num_inference_steps": 21,
    "width": 768,
    "height": 512,
    "guidance_milli": 4501,
    "dtype": "bfloat16",
    "negative_prompt": "blurry",
    "drawing": "0123",
    "embedder": "0123abcd",
}
HOSTILE_IDS = {
    "climbs": "../x",
    "is the folder itself": ".",
    "is the folder above": "..",
    "is a path": "a/b",
    "is a path of another system": "a\\b",
    "is absolute": "/etc",
    "holds NUL": "a\0b",
    "ends in a newline": "a\n",
    "is empty": "",
    "is a blank": " ",
    "is too long": "a" * 129,
    "is far too long": "a" * 200,
    "is not ASCII": "é",
    "holds digits of another script": "٣",
    "is a temporary name": ".tmp-1",
}


@pytest.mark.parametrize("name", [field.name for field in fields(ModelKey)])
def test_each_field_changes_fingerprint(name: str) -> None:
    """Anything that changes the meaning of a latent makes it a miss; a new field must be listed here too."""
    assert replace(MODEL, **{name: OTHER_VALUES[name]}).fingerprint != MODEL.fingerprint


OTHER_FACTS: dict[str, Any] = {
    "model_digest": "sha256:ac",
    "noise_scheduler": "ddim",
    "width": 768,
    "height": 512,
    "dtype": "bfloat16",
    "guidance_scale": 4.501,
    "negative_prompt": "blurry",
    "drawing": Drawing("ddim"),
    "num_inference_steps": 21,
    "embedder": "0123abcd",
}


@pytest.mark.parametrize("name", OTHER_FACTS)
def test_each_fact_of_model_and_request_reaches_the_key(name: str) -> None:
    """Gateway and worker both ask this function: what it left out would be left out by both, and nobody would miss."""
    facts = {**asdict(MODEL), "guidance_scale": 4.5, "drawing": PLAIN, "adapters": ()}
    assert _fingerprint(facts) == MODEL.fingerprint
    assert _fingerprint(facts | {name: OTHER_FACTS[name]}) != MODEL.fingerprint


def test_adapters_count_by_their_files_and_scales() -> None:
    """A name is the pool's own affair: the same file under another one gives the same latents."""
    facts = {**asdict(MODEL), "guidance_scale": 4.5}

    def key(digest: str, *used: ScaledAdapter) -> str:
        known = [AdapterFacts(name, digest, 1.0) for name in ("style", "other")]
        return _fingerprint(facts | {"adapters": known, "drawing": Drawing(adapters=used)})

    keys = [
        key("1f", ScaledAdapter("style", 1.0)),
        key("1f", ScaledAdapter("style", 0.5)),
        key("2e", ScaledAdapter("style", 1.0)),
        key("1f", ScaledAdapter("other", 1.0), ScaledAdapter("style", 1.0)),
    ]
    assert len({*keys, MODEL.fingerprint}) == len(keys) + 1
    assert key("1f", ScaledAdapter("other", 1.0)) == keys[0]
    assert key("1f") == MODEL.fingerprint


def _fingerprint(facts: dict[str, Any]) -> str:
    said = SimpleNamespace(**facts)
    size = ImageSize(said.width, said.height)
    return model_fingerprint(said, said, size, num_inference_steps=said.num_inference_steps, embedder=said.embedder)


def test_exchanged_fields_change_fingerprint() -> None:
    """Values count by place: 512x768 and 768x512 are different models."""
    assert replace(MODEL, width=MODEL.height, height=MODEL.width).fingerprint != MODEL.fingerprint


def test_fingerprint_stays_as_it_is() -> None:
    """Gateway and workers of two releases, on different machines, must agree, or every stored latent is lost."""
    assert MODEL.fingerprint == "ccbf2a075ebf41d1cf579883681d454a"
    assert ModelKey("sha256:ab", "flow-euler", 20, 512, 768, 4500, "float16", "").fingerprint == MODEL.fingerprint


@settings(max_examples=60, deadline=None)
@given(negative=st.text(st.characters(exclude_categories=["Cs"]), max_size=80), steps=st.integers(1, 1000))
def test_fingerprint_is_valid_key_component(negative: str, steps: int) -> None:
    """Whatever a client writes as negative prompt, the fingerprint is 32 hex digits and can become a path."""
    fingerprint = replace(MODEL, negative_prompt=negative, num_inference_steps=steps).fingerprint
    assert len(fingerprint) == 32
    assert set(fingerprint) <= set("0123456789abcdef")
    assert LatentKey("s", fingerprint, "e", 1).model == fingerprint


@pytest.mark.parametrize("hostile", HOSTILE_IDS.values(), ids=HOSTILE_IDS.keys())
@pytest.mark.parametrize("place", ["scope", "model", "entry_id"])
def test_hostile_id_is_refused(place: str, hostile: str) -> None:
    """Ids come over the wire and become paths; no component is trusted."""
    with pytest.raises(ValueError, match=place):
        LatentKey(**({"scope": "s", "model": "m", "entry_id": "e", "step": 1} | {place: hostile}))


@pytest.mark.parametrize("step", [-1, 1_000_001])
def test_step_out_of_range_is_refused(step: int) -> None:
    """Steps come over the wire too."""
    with pytest.raises(ValueError, match="step"):
        LatentKey("s", "m", "e", step)


@pytest.mark.parametrize("part", ["a", "A-Z_09", "-", "x" * 128])
def test_plain_ids_are_taken(part: str) -> None:
    """The check refuses nothing that our own ids use, up to its limit of 128 characters."""
    assert LatentKey(part, part, part, 0).scope == part


def test_tenants_are_kept_apart() -> None:
    """With Tenant no two tenants, and no two pools, share a scope, and the same tenant always finds its own."""
    pairs = [("p", "alice"), ("p", "bob"), ("q", "alice"), ("p", ""), ("", "p")]
    assert len({scope_id("Tenant", pool, tenant) for pool, tenant in pairs}) == len(pairs)
    assert scope_id("Tenant", "p", "alice") == scope_id("Tenant", "p", "alice")


def test_pool_shares_one_scope() -> None:
    """With Pool every tenant of the pool has one scope; another pool and every tenant's own scope differ from it."""
    assert scope_id("Pool", "p", "alice") == scope_id("Pool", "p", "bob")
    assert scope_id("Pool", "p", "alice") != scope_id("Pool", "q", "alice")
    assert scope_id("Pool", "p", "pool") != scope_id("Tenant", "p", "pool")
    assert scope_id("Pool", "p", "") != scope_id("Tenant", "p", "")


def test_off_caches_nothing() -> None:
    """None, so that a caller cannot store under a made-up scope by mistake."""
    assert scope_id("Off", "p", "alice") is None


@settings(max_examples=60, deadline=None)
@given(tenant=st.text(st.characters(exclude_categories=["Cs"]), min_size=3, max_size=40), shared=st.booleans())
def test_scope_does_not_tell_tenant_or_pool(tenant: str, shared: bool) -> None:
    """The id is a file name others may list: 32 hex digits, valid in a key, with no name in it."""
    found = scope_id("Pool" if shared else "Tenant", "some-pool", f"x{tenant}")
    assert found is not None
    assert len(found) == 32
    assert f"x{tenant}" not in found
    assert "some-pool" not in found
    assert LatentKey(found, "m", "e", 1).scope == found
