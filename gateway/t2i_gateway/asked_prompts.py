"""Which prompts were asked lately, and with which seed: a repeat with another seed must become another picture.

Prompts are known by the digest that their latents are kept under, each tenant's apart. Memory is bounded: a prompt that
was not asked for long counts as new, and then costs at most diversity.
"""

from collections import OrderedDict

MAX_REMEMBERED = 16_384


class AskedPrompts:
    """Remembers the last seed of each tenant's newest prompts. Used from one event loop."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._most = most
        self._seeds: OrderedDict[tuple[str, str], int] = OrderedDict()

    def with_other_seed(self, tenant: str, prompt_id: str, seed: int) -> bool:
        """Whether this tenant's last request for the prompt had another seed."""
        return self._seeds.get((tenant, prompt_id), seed) != seed

    def with_same_seed(self, tenant: str, prompt_id: str, seed: int) -> bool:
        """Whether this tenant's last request for the prompt had this seed."""
        return self._seeds.get((tenant, prompt_id)) == seed

    def __contains__(self, asked: tuple[str, str]) -> bool:
        """Whether a tenant asked for a prompt lately: (tenant, prompt id)."""
        return asked in self._seeds

    def note(self, tenant: str, prompt_id: str, seed: int) -> None:
        """Remember that the tenant asks for this prompt and seed now."""
        self._seeds[tenant, prompt_id] = seed
        self._seeds.move_to_end((tenant, prompt_id))
        if len(self._seeds) > self._most:
            self._seeds.popitem(last=False)
