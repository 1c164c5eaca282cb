"""The attacks of "Attacks on Approximate Caches in Text-to-Image Diffusion Models" (arXiv 2508.20424), on a gateway.

Covert channel and content detection rest on telling whether somebody's prompt is cached, prompt recovery on doing so
again and again, poisoning on leaving latents that others start from. With the default scope none may get a foothold; in
a pool whose owner shares latents each of them succeeds, so the attacks here are real ones.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import grpc
import pytest

from attacked_tenants import PLANTED, SECRETS, TENANTS
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.cached_prompts import SKIP, captions
from t2i_testing_kit.secured_pool import Caller, SecuredPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
AT_ONCE = 32
EXPLAINED, DRAWN = 8500, 1500  # tries: 10^4 together
T = TypeVar("T")


async def each(prompts: Iterable[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """Ask about every prompt, some at once; answers in order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: str) -> T:
        async with slots:
            return await ask(prompt)

    return await asyncio.gather(*(one(prompt) for prompt in prompts))


async def drawn(caller: Caller, prompts: Iterable[str]) -> list[int]:
    """Steps that were really skipped, of each prompt."""

    async def skipped(prompt: str) -> int:
        return (await caller.generate(prompt, 120))[-1].done.served.skipped_steps

    return await each(prompts, skipped)


def probes(count: int) -> list[str]:
    """The victim's own words, with another case or ending now and then, as an attacker varies them."""
    variants = ("{}", "{}.", "{} ", "a picture of {}")
    return [variants[n // len(SECRETS) % len(variants)].format(SECRETS[n % len(SECRETS)]) for n in range(count)]


def leaks(answer: gateway_pb2.ExplainResponse) -> bool:
    """True if anything in it depends on a cached prompt."""
    near = answer.HasField("similarity") or answer.cached_steps
    return bool(near or answer.decision.served.skipped_steps or answer.decision.wanted.skipped_steps)


async def test_probes_never_hit_another_tenants_latents(private: SecuredPool) -> None:
    """10^4 tries with the victim's own words and variants of them: no hit, no similarity, no skipped step."""
    prober = private.caller(TENANTS["prober"])
    before = await hits(private)
    assert sum(map(leaks, await each(probes(EXPLAINED), prober.explain))) == 0
    assert sum(skipped > 0 for skipped in await drawn(prober, probes(DRAWN))) == 0
    assert await hits(private) == before


async def hits(pool: SecuredPool) -> float:
    """Images that started from a latent, as the gateway counts them."""
    text = await asyncio.to_thread(pool.metrics_text)
    return sum(float(value) for value in re.findall(r"^t2i_gateway_cache_hits_total{.*} (\S+)$", text, re.MULTILINE))


async def test_probes_hit_what_is_there_to_be_hit(private: SecuredPool, shared: SecuredPool) -> None:
    """The same questions by the victim itself, and by the prober in a pool that shares: nearly all hit."""
    own = await drawn(private.caller(TENANTS["victim"]), probes(200))
    others = await drawn(shared.caller(TENANTS["prober"]), probes(200))
    assert sum(own) == sum(others) == 200 * SKIP


async def test_answers_do_not_depend_on_what_another_tenant_asked(private: SecuredPool) -> None:
    """To a tenant that never asked, prompts that the victim has cached and prompts that nobody has are the same."""
    newcomer = private.caller(TENANTS["newcomer"])
    cached, unknown = await each(SECRETS, newcomer.explain), await each(captions(300, seed=9), newcomer.explain)
    assert {shown(answer) for answer in cached} == {shown(answer) for answer in unknown}
    assert len({shown(answer) for answer in cached}) == 1


def shown(answer: gateway_pb2.ExplainResponse) -> bytes:
    """The answer without what depends on the load of the moment."""
    copy = gateway_pb2.ExplainResponse()
    copy.CopyFrom(answer)
    for level in copy.levels:
        level.estimated_ms = 0
    return copy.SerializeToString(deterministic=True)


async def recovered(caller: Caller, candidates: Sequence[str], secrets: Sequence[str]) -> int:
    """How many secrets the attacker finds among the candidates, by whatever signal the answers give."""
    answers = dict(zip(candidates, await each(candidates, caller.explain), strict=True))

    def signal(candidate: str) -> tuple[float, ...]:
        answer = answers[candidate]
        levels = (answer.decision.wanted.skipped_steps, answer.decision.served.skipped_steps)
        return (answer.similarity, *levels, answer.decision.expected_quality_percent)

    guessed = sorted(candidates, key=signal, reverse=True)[: len(secrets)]  # stable: without a signal as they come
    return len(set(guessed) & set(secrets))


async def test_prompts_cannot_be_recovered(private: SecuredPool, shared: SecuredPool) -> None:
    """Which 30 of 300 candidates has the victim asked for? Guessing finds 3, at most 8 in 99.9 % of guesses."""
    secrets, decoys = SECRETS[:30], captions(270, seed=5)
    candidates = sorted([*secrets, *(decoy for decoy in decoys if decoy not in SECRETS)])
    assert await recovered(private.caller(TENANTS["prober"]), candidates, secrets) <= 8
    assert await recovered(shared.caller(TENANTS["prober"]), candidates, secrets) >= 25


async def test_shared_latents_are_not_described(shared: SecuredPool) -> None:
    """Who shares gives the hit away, by its time if by nothing else; not how similar whose prompt is."""
    answer = await shared.caller(TENANTS["prober"]).explain(SECRETS[0])
    assert answer.decision.served.skipped_steps == SKIP
    assert not answer.HasField("similarity")
    assert (len(answer.cached_steps), len(answer.levels)) == (0, 0)
    assert "similarity" not in answer.decision.message


async def test_planted_latents_reach_nobody_else(private: SecuredPool, shared: SecuredPool) -> None:
    """The attacker has latents of exactly what the victim asks for next; the victim starts from noise."""
    fresh = [prompt for prompt in PLANTED if prompt not in SECRETS]
    attacker, victim = private.caller(TENANTS["attacker"]), private.caller(TENANTS["victim"])
    assert sum(await drawn(attacker, fresh)) == SKIP * len(fresh), "the bait is there"
    near = [answer for answer in await each(fresh, victim.explain) if answer.similarity > 0.999]
    assert near == [], "the victim sees its own neighbours only, none of which has the very same words"
    assert sum(await drawn(shared.caller(TENANTS["victim"]), fresh)) == SKIP * len(fresh)


CANARY = "zyxomma quarzite heliotrope"


async def test_logs_and_metrics_hold_no_prompt_tenant_or_token(private: SecuredPool) -> None:
    """Also of requests that are refused, cancelled, too late or malformed."""
    victim = private.caller(TENANTS["victim"])
    await victim.generate(CANARY, negative_prompt=CANARY, request_id="canary-id")
    call = victim.stub.Generate(gateway_pb2.GenerateRequest(prompt=CANARY), metadata=victim.metadata)
    call.cancel()
    for caller, fields, limit_s in (
        (victim, {"width": 7}, 20.0),
        (victim, {"request_id": "canary-id"}, 20.0),
        (victim, {"exact": True}, 0.021),
        (private.caller("canary-token"), {}, 20.0),
    ):
        with suppress(grpc.aio.AioRpcError):
            await caller.generate(CANARY, limit_s, **fields)
    said = [process.log_path.read_text() for process in (private.gateway, private.worker)]
    said += [await asyncio.to_thread(private.metrics_text, process) for process in (private.gateway, private.worker)]
    for word in (*CANARY.split(), "victim", "canary", *TENANTS.values()):
        assert not any(word in text for text in said), word
