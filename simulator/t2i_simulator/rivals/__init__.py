"""Rivals: the policies that ours is measured against, behind the same interface (`policies.ServingPolicy`).

Each module opens with the source of its rule and what was simplified; no code was taken from any of the systems.
All share the queue, admission, step-level batches, the measured profile and the fallback on a missing latent. So
differences come from the policy alone. No rival has a quality floor for one prompt, or bends a level for one deadline.
They choose among the skips of the full schedule, as their papers do. `catalogue` lists them by name.
"""
