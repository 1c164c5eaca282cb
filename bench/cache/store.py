"""A Valkey on loopback: latents fetched one after the other, and a gateway's catalogue rebuilt from many prompts."""

import asyncio
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from bench.cache.index import Figures
from bench.cache.made_up_embeddings import DIMENSION, MadeUpEmbeddings, Vectors
from bench.kit.output import say
from t2i_cache.follow import SharedFollower
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, decode_record, encode_record
from t2i_cache.stores import RedisStore, StoreLimits
from t2i_cache.stores.redis import open_redis
from t2i_testing_kit.valkey.server import ValkeyServer, valkey_server

SIZES_KIB = (32, 128, 512)
FETCHES = 2000
AT_ONCE = 64
LIMITS = StoreLimits(64 << 30, 86_400.0)


async def measure_fetch() -> Figures:
    """Milliseconds from asking to a checked record, by the latent's size; `get` is without the check."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder, valkey_server(Path(folder)) as server:
        async with _opened(server) as store:
            for kib in SIZES_KIB:
                say(f"fetching latents of {kib} KiB")
                figures[f"{kib}k"] = await _fetch(store, kib)
    return figures


@asynccontextmanager
async def _opened(server: ValkeyServer) -> AsyncIterator[RedisStore]:
    store = open_redis(server.url, "bench", LIMITS, {})
    try:
        yield store
    finally:
        await store.close()


async def _fetch(store: RedisStore, kib: int) -> Figures:
    prompts = MadeUpEmbeddings(seed=kib).stored(16)
    keys = [LatentKey("s", "m", f"{kib}-{number}", 10) for number in range(len(prompts))]
    tensor = np.random.default_rng(kib).standard_normal(kib * 512).astype("<f2").tobytes()
    for key, embedding in zip(keys, prompts, strict=True):
        record = LatentRecord(key, "float16", (kib * 512,), tensor, embedding, time.time(), "bench")
        await store.put(key, encode_record(record))
    total_ms, get_ms = np.empty(FETCHES), np.empty(FETCHES)
    for number in range(FETCHES):
        key, began_s = keys[number % len(keys)], time.perf_counter()
        data = await store.get(key)
        get_ms[number] = 1e3 * (time.perf_counter() - began_s)
        decode_record(data or b"", key)
        total_ms[number] = 1e3 * (time.perf_counter() - began_s)
    quantiles = {
        "p50_ms": (total_ms, 50),
        "p99_ms": (total_ms, 99),
        "get_p50_ms": (get_ms, 50),
        "get_p99_ms": (get_ms, 99),
    }
    return {name: round(float(np.percentile(times, place)), 3) for name, (times, place) in quantiles.items()}


async def measure_rebuild(size: int) -> Figures:
    """Seconds until a gateway that starts knows `size` prompts (one latent each), and the memory it takes."""
    with tempfile.TemporaryDirectory() as folder, valkey_server(Path(folder)) as server:
        async with _opened(server) as store:
            await _fill(store, size)
            say(f"{size}: rebuilding a catalogue")
            before, began_s = _resident_bytes(), time.perf_counter()
            follower = SharedFollower(store, StoreLimits(1 << 60, 86_400.0), lambda _: None)
            following = asyncio.create_task(follower.run())
            await follower.current.wait()
            passed_s, catalogue = time.perf_counter() - began_s, follower.catalogue
            following.cancel()
            await asyncio.wait([following])
            if catalogue.num_entries != size:
                raise RuntimeError(f"{catalogue.num_entries} of {size} prompts are back")
            return {
                "rebuild_s": round(passed_s, 2),
                "bytes_per_entry": round((_resident_bytes() - before) / size),
                "store_bytes_per_entry": _server_bytes(server) // size,
            }


async def _fill(store: RedisStore, size: int) -> None:
    prompts = MadeUpEmbeddings(seed=size + 1)
    for start in range(0, size, 10_000):
        vectors = prompts.stored(min(10_000, size - start))
        keys = [LatentKey("s", "m", f"{start + number:032d}", 10) for number in range(len(vectors))]
        for at in range(0, len(keys), AT_ONCE):
            some = zip(keys[at : at + AT_ONCE], vectors[at : at + AT_ONCE], strict=True)
            await asyncio.gather(*(store.put(key, _record(key, vector)) for key, vector in some))
        if (start + 10_000) % 100_000 == 0:
            say(f"{size}: {start + 10_000} prompts stored")


def _record(key: LatentKey, embedding: Vectors) -> bytes:
    return encode_record(
        LatentRecord(key, "float16", (4,), bytes(8), embedding.reshape(DIMENSION), time.time(), "bench")
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _server_bytes(server: ValkeyServer) -> int:
    text = server.command("INFO", "memory").decode()
    return int(next(line for line in text.splitlines() if line.startswith("used_memory:")).partition(":")[2])
