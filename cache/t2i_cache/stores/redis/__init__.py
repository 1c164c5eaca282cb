"""Latents in a Valkey or Redis server, shared by all gateways and workers of a pool.

Every change is one script (`latents.lua`, which also tells the layout of the keys). So bytes, scores, times and the
stream of changes always agree, whoever writes at the same time. The byte cap holds in the store itself: a put makes
room by the lowest scores first. It is a cache: it may be lost, emptied or restarted at any time; then requests start
from noise until it fills again. No call waits longer than its limit, and after trouble calls fail at once for a moment.
"""

from t2i_cache.stores.redis.connecting import PASSWORD_VARIABLE, TLS_VARIABLE, USER_VARIABLE, open_redis
from t2i_cache.stores.redis.store import RedisStore, Usage

__all__ = ["PASSWORD_VARIABLE", "TLS_VARIABLE", "USER_VARIABLE", "RedisStore", "Usage", "open_redis"]
