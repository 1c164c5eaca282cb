"""A store that one process has to itself and keeps in bounds: what lies there, what must go, who hears of it."""

from t2i_cache.stores.bounded.following import GoneLatent, LatentNews
from t2i_cache.stores.bounded.ledger import HeldLatents
from t2i_cache.stores.bounded.store import BoundedStore, StoreTally

__all__ = ["BoundedStore", "GoneLatent", "HeldLatents", "LatentNews", "StoreTally"]
