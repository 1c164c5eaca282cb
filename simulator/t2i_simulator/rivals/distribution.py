"""Distribution alignment: a map of probabilities from the histogram h of wanted levels to the target f.

Source: `oda_algorithm` ("Distribution Aligner") in the artifact of the paper's lineage (AccuScale/Argus), rebuilt from
its description. Positions 0..n-1 are levels by rising K; P[i][j] is the probability that a prompt wanting i runs at j.
It scans k from the largest K down:

    surplus  h_k > f_k: the share (h_k - f_k) / h_k of the prompts at k moves to k - 1 (fewer skips, safe for quality)
    deficit  h_k < f_k: k is filled from k - 1, k - 2, ..., nearest first

In `one_hop_map`, as in the artifact, a prompt moves once, by the row of the level that it wanted. Prompts that were
moved to k - 1 are counted there but do not move on. So the map misses f whenever a move needs two hops.
In `chained_map` all prompts that are at k by then move, and it always hits f. Our planner needs no such map: its
program finds the map together with f.
"""

from collections.abc import Sequence

Map = tuple[tuple[float, ...], ...]


def one_hop_map(h: Sequence[float], f: Sequence[float]) -> Map:
    """The artifact's map; rows sum to 1. `h` and `f` are shares that sum to 1."""
    now = list(h)
    moved = _identity(len(h))
    for k in range(len(h) - 1, 0, -1):
        if now[k] > f[k]:
            stays = moved[k][k]  # without the share that was moved up from k before
            share = stays * (now[k] - f[k]) / now[k]
            moved[k][k] -= share
            moved[k][k - 1] += share
            now[k - 1] += now[k] - f[k]
            now[k] = f[k]
            continue
        for source in range(k - 1, -1, -1):
            shift = min(now[source], f[k] - now[k])
            if shift <= 0:
                continue
            share = min(moved[source][source], shift / h[source]) if h[source] > 0 else 0.0
            moved[source][source] -= share
            moved[source][k] += share
            now[source] -= shift
            now[k] += shift
    return tuple(tuple(row) for row in moved)


def chained_map(h: Sequence[float], f: Sequence[float]) -> Map:
    """The same scan, but a move takes its share of all prompts that are there by then."""
    size = len(h)
    at = [[h[i] if i == j else 0.0 for j in range(size)] for i in range(size)]  # mass by (wanted, now at)
    for k in range(size - 1, 0, -1):
        here = sum(row[k] for row in at)
        if here > f[k]:
            _move(at, k, k - 1, here - f[k])
            continue
        for source in range(k - 1, -1, -1):
            short = f[k] - sum(row[k] for row in at)
            _move(at, source, k, min(short, sum(row[source] for row in at)))
    return _normalised(at)


def _move(at: list[list[float]], source: int, to: int, mass: float) -> None:
    """Move `mass` from `source`, of every wanted level in proportion to what it has there."""
    total = sum(row[source] for row in at)
    if mass <= 0 or total <= 0:
        return
    for row in at:
        part = row[source] * mass / total
        row[source] -= part
        row[to] += part


def _identity(size: int) -> list[list[float]]:
    return [[1.0 if i == j else 0.0 for j in range(size)] for i in range(size)]


def _normalised(at: list[list[float]]) -> Map:
    totals = [sum(row) for row in at]
    return tuple(
        tuple(mass / total for mass in row) if total > 0 else tuple(1.0 if i == j else 0.0 for j in range(len(at)))
        for i, (row, total) in enumerate(zip(at, totals, strict=True))
    )
