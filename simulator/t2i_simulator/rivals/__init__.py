"""Baselines: the policies that ours is measured against, each behind the same interface (`policies.ServingPolicy`).

Every module opens with where its rule comes from and what was simplified; no code was taken from any of the systems.
What all of them share, so that differences come from the policy alone: the queue, admission, step-level batches, the
measured profile (they read the same loss bounds), and the fallback on a hole in the cache. What none of the rivals
has, and so is left out of them: quality floors for one prompt and a level that bends for one deadline. They choose
among the skips of the full schedule, as their papers do, unless told otherwise. `catalogue` lists them by name.
"""
