"""`t2ictl cache` against a real Valkey and a folder: what is there, what goes, what can be carried elsewhere."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.scope import scope_id
from t2i_cache.stores import StoreLimits, open_store
from t2i_testing_kit.valkey.server import ValkeyServer
from t2ictl.app import app
from t2ictl.errors import CtlError

POOL = "models/demo"


def record(key: LatentKey, digest: str) -> bytes:
    return encode_record(LatentRecord(key, "float16", (2,), bytes(4), np.ones(3, np.float32), time.time(), digest))


async def fill(url: str) -> None:
    """Two latents of alice's one prompt (model d1), one of bob's (model d2)."""
    store = open_store(url, POOL, StoreLimits(1 << 30, 86_400.0))
    for tenant, step, digest in (("alice", 5, "d1"), ("alice", 10, "d1"), ("bob", 5, "d2")):
        key = LatentKey(scope_id("Tenant", "demo", tenant) or "", "model", tenant, step)
        await store.put(key, record(key, digest))
    await store.close()


def run(url: str, *arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(app, ["cache", *arguments, "--store", url, "--pool", POOL], catch_exceptions=True)
    if isinstance(result.exception, CtlError):
        return str(result.exception)
    return result.output


@pytest.fixture(params=["redis", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "latents").as_uri()
    server: ValkeyServer = request.getfixturevalue("valkey_session")
    server.command("FLUSHALL")
    return server.url


def filled(url: str) -> str:
    asyncio.run(fill(url))
    return url


def test_stats_tell_how_much_is_there(url: str) -> None:
    """Prompts, latents, models; of one tenant too; an empty store is no error."""
    assert "0 prompts" in run(url, "stats")
    filled(url)
    text = run(url, "stats")
    assert "2 prompts of 2 scopes, 3 latents" in text
    assert "d1" in text
    assert "d2" in text
    assert "1 prompts of 1 scopes, 2 latents" in run(url, "stats", "--tenant", "alice")


@pytest.mark.parametrize(
    ("named", "dropped", "left"),
    [
        (("--tenant", "alice"), 2, 1),
        (("--model-digest", "d2"), 1, 2),
        (("--tenant", "alice", "--model-digest", "d2"), 0, 3),
        (("--all",), 3, 0),
    ],
)
def test_purge_takes_what_is_named(url: str, named: tuple[str, ...], dropped: int, left: int) -> None:
    """A tenant, a model, both, or all; the rest stays."""
    filled(url)
    assert f"{dropped} latents purged" in run(url, "purge", *named)
    assert f"{left} latents" in run(url, "stats")


def test_purge_of_nothing_in_particular_is_refused(url: str) -> None:
    """All has to be said."""
    filled(url)
    assert "--all" in run(url, "purge")
    assert "3 latents" in run(url, "stats")


def test_export_comes_back_elsewhere(url: str, tmp_path: Path) -> None:
    """Into an empty store: the same latents; of one tenant only, if asked."""
    filled(url)
    out = tmp_path / "alice.tar"
    assert "2 latents in" in run(url, "export", str(out), "--tenant", "alice")
    run(url, "purge", "--all")
    assert "2 latents stored" in run(url, "import", str(out))
    assert "1 prompts of 1 scopes, 2 latents" in run(url, "stats")


def test_what_is_no_export_is_refused(url: str, tmp_path: Path) -> None:
    """By name, and nothing is stored."""
    (tmp_path / "x.tar").write_bytes(b"not a tar file")
    assert "is no export of latents" in run(url, "import", str(tmp_path / "x.tar"))


def test_store_that_is_away_says_what_to_check() -> None:
    """The URL, and the password's variable."""
    text = run("redis://127.0.0.1:1", "stats")
    assert "T2I_STORE_PASSWORD" in text
