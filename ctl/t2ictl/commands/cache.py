"""`t2ictl cache stats | purge | export | import`: look into a latent store, empty parts of it, carry it elsewhere.

An export is a tar file of records, laid out as in a file:// store (SCOPE/MODEL/ENTRY/STEP.latent). So it can also be
unpacked into such a store. Records name their key and carry a checksum: what is damaged or misplaced is left out.
"""

import io
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from t2i_cache.errors import RecordError, StoreError, StoreUrlError
from t2i_cache.keys import LatentKey
from t2i_cache.records import peek, read_any
from t2i_cache.scope import scope_id
from t2i_cache.stores import LatentStore, RedisStore, StoreLimits, open_store
from t2ictl.errors import InputInvalid, StoreFailed
from t2ictl.running import console, run

app = typer.Typer(
    no_args_is_help=True, help="Latents of earlier prompts; user and password from T2I_STORE_USER, T2I_STORE_PASSWORD."
)
Store = Annotated[str, typer.Option(envvar="T2I_STORE", help="redis://HOST:PORT, rediss:// or file:///PATH")]
StorePool = Annotated[str, typer.Option("--pool", "-p", help="the pool's name; in a cluster NAMESPACE/NAME")]
StoreTenant = Annotated[str, typer.Option(help="only what belongs to this tenant")]

MAX_MEMBER_BYTES = 1 << 30
#: None of ours: the pool's workers and gateways hold the store to its byte cap and TTL within moments.
NO_LIMITS = StoreLimits(1 << 50, 315_360_000.0)
PURGED = "purged"


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store's URL, and whose latents in it: the pool's name, in a cluster NAMESPACE/NAME."""

    url: str
    pool: str

    def scope(self, tenant: str) -> str:
        """The scope of a tenant of this pool; empty for no tenant."""
        return (scope_id("Tenant", self.pool.rpartition("/")[2], tenant) or "") if tenant else ""


@app.command()
def stats(store: Store, pool: StorePool, tenant: StoreTenant = "") -> None:
    """How many latents are stored, of how many prompts, by model."""
    run(show_stats(console, StorePlace(store, pool), tenant))


@app.command()
def purge(
    store: Store,
    pool: StorePool,
    tenant: StoreTenant = "",
    model_digest: Annotated[str, typer.Option(help="only what this model left; see stats")] = "",
    everything: Annotated[bool, typer.Option("--all", help="all latents of the pool")] = False,
) -> None:
    """Throw away latents, for good; gateways that follow the store forget them within moments."""
    run(purge_latents(console, StorePlace(store, pool), tenant, model_digest, everything))


@app.command()
def export(out: Path, store: Store, pool: StorePool, tenant: StoreTenant = "") -> None:
    """Write latents into a tar file. It lets images be drawn that resemble your users' prompts: keep it as you keep
    those."""
    run(export_latents(console, StorePlace(store, pool), tenant, out))


@app.command("import")
def import_(file: Path, store: Store, pool: StorePool) -> None:
    """Store the latents of an export, for a pool of the same name, model and settings."""
    run(import_latents(console, StorePlace(store, pool), file))


async def show_stats(console: Console, place: StorePlace, tenant: str) -> None:
    """How much is stored, by model; of one tenant if asked for."""
    entries, latents, stored_bytes = set[str](), Counter[str](), Counter[str]()
    scopes, scope = set[str](), place.scope(tenant)
    async with _opened(place) as store:
        async for key, size, digest in _listed(store, with_digest=True):
            if scope not in ("", key.scope):
                continue
            entries.add(f"{key.scope}:{key.model}:{key.entry_id}")
            scopes.add(key.scope)
            latents[digest] += 1
            stored_bytes[digest] += size
        marked = (await store.usage()).marked if isinstance(store, RedisStore) else None
    total = sum(stored_bytes.values())
    console.print(
        f"{len(entries)} prompts of {len(scopes)} scopes, {latents.total()} latents, {_mib(total)}", highlight=False
    )
    if marked:
        console.print(f"{marked} latents are marked to go first", highlight=False)
    if latents:
        table = Table("model digest", "latents", "size", box=None, pad_edge=False)
        for digest, count in latents.most_common():
            table.add_row(digest or "(not noted)", str(count), _mib(stored_bytes[digest]))
        console.print(table)


async def purge_latents(console: Console, place: StorePlace, tenant: str, model_digest: str, everything: bool) -> None:
    """Drop what belongs to a tenant, to a model, to both, or all of the pool.

    Raises:
        InputInvalid: nothing was named.
    """
    if not (tenant or model_digest or everything):
        raise InputInvalid(
            "say what to purge: --tenant NAME, --model-digest DIGEST, both, or --all of the pool's latents"
        )
    scope = place.scope(tenant)
    async with _opened(place) as store:
        if isinstance(store, RedisStore):
            dropped = await store.purge(scope, model_digest)
        else:
            dropped = await _purge_listed(store, scope, model_digest)
    console.print(f"{dropped} latents {PURGED}", highlight=False)


async def _purge_listed(store: LatentStore, scope: str, model_digest: str) -> int:
    dropped = 0
    async for key, _, digest in _listed(store, with_digest=bool(model_digest)):
        if scope in ("", key.scope) and model_digest in ("", digest):
            await store.delete(key)
            dropped += 1
    return dropped


async def export_latents(console: Console, place: StorePlace, tenant: str, out: Path) -> None:
    """Write sound records into a tar file, which is there whole or not at all."""
    scope, part, written, left_out = place.scope(tenant), out.with_suffix(out.suffix + ".part"), 0, 0
    with _progress(console) as progress, tarfile.open(part, "w") as archive:
        task = progress.add_task("latents", total=None)
        async with _opened(place) as store:
            async for key, _, _ in _listed(store, with_digest=False):
                data = await store.get(key) if scope in ("", key.scope) else None
                if data is None:
                    continue
                if _is_sound(data, key):
                    _add(archive, key, data)
                    written += 1
                else:
                    left_out += 1
                progress.update(task, completed=written)
    part.replace(out)
    console.print(f"{written} latents in {out}" + _left_out(left_out), highlight=False, soft_wrap=True)


async def import_latents(console: Console, place: StorePlace, file: Path) -> None:
    """Store the records of an export; ages go on, so that the TTL holds.

    Raises:
        InputInvalid: the file cannot be read.
    """
    stored, left_out = 0, 0
    try:
        with _progress(console) as progress, tarfile.open(file) as archive:
            task = progress.add_task("latents", total=None)
            async with _opened(place) as store:
                for member in archive:
                    found = _read(archive, member)
                    if found is None:
                        left_out += int(member.isfile())
                        continue
                    await _put(store, *found)
                    stored += 1
                    progress.update(task, completed=stored)
    except (OSError, tarfile.TarError) as error:
        raise InputInvalid(f"{file} is no export of latents: {error}") from error
    console.print(f"{stored} latents stored" + _left_out(left_out), highlight=False)


async def _put(store: LatentStore, key: LatentKey, data: bytes, age_s: float) -> None:
    if isinstance(store, RedisStore):
        await store.put(key, data, age_s)
    else:
        await store.put(key, data)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[LatentKey, bytes, float] | None:
    """A sound record whose name is that of its key, with its age."""
    file = archive.extractfile(member) if member.isfile() and member.size <= MAX_MEMBER_BYTES else None
    if file is None:
        return None
    data = file.read()
    try:
        record = read_any(data)
    except RecordError:
        return None
    return (record.key, data, time.time() - record.created_s) if _name(record.key) == member.name else None


def _is_sound(data: bytes, key: LatentKey) -> bool:
    try:
        return read_any(data).key == key
    except RecordError:
        return False


def _add(archive: tarfile.TarFile, key: LatentKey, data: bytes) -> None:
    member = tarfile.TarInfo(_name(key))
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(data))


def _name(key: LatentKey) -> str:
    return f"{key.scope}/{key.model}/{key.entry_id}/{key.step}.latent"


async def _listed(store: LatentStore, with_digest: bool) -> AsyncIterator[tuple[LatentKey, int, str]]:
    if isinstance(store, RedisStore):
        async for page in store.pages():
            for entry in page:
                for item in entry.items:
                    key = LatentKey(entry.scope, entry.model, entry.entry_id, item.step)
                    yield key, item.size_bytes, entry.model_digest
        return
    async for key, size in store.scan():
        yield key, size, _digest(await store.get(key)) if with_digest else ""


def _digest(data: bytes | None) -> str:
    try:
        return peek(data or b"")[1]
    except RecordError:
        return ""


@asynccontextmanager
async def _opened(place: StorePlace) -> AsyncIterator[LatentStore]:
    try:
        store = open_store(place.url, place.pool, NO_LIMITS)
    except StoreUrlError as error:
        raise InputInvalid(str(error).replace("cache.storeUrl", "--store")) from error
    try:
        yield store
    except StoreError as error:
        raise StoreFailed(
            f"{error}; is --store {place.url} right, and T2I_STORE_PASSWORD set if it asks for one?"
        ) from error
    finally:
        await store.close()


def _progress(console: Console) -> Progress:
    return Progress(console=console, transient=True)


def _left_out(count: int) -> str:
    return f"; {count} damaged ones left out" if count else ""


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
