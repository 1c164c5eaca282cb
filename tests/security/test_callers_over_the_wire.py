"""Who gets in: real processes over loopback, callers with every kind of proof and of forgery."""

from contextlib import aclosing
from datetime import timedelta

import pytest

from t2i_protos.v1 import gateway_pb2
from t2i_runtime.tokens import line_of, new_token
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.secured_pool import SecuredPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
SPOOF = (("x-t2i-tenant", "victim"),)
STRANGERS = TestAuthority("strangers")
VICTIM = new_token()  # of nobody here, or of another tenant elsewhere
RELOADS = 't2i_gateway_secret_reloads_total{outcome="%s",use="%s"}'


async def reloaded(pool: SecuredPool, use: str, change: dict[str, bytes], outcome: str = "in_force") -> None:
    """Swap a mounted Secret (`tls`, `tokens`) and wait until the gateway has read it."""
    name = RELOADS % (outcome, "clients" if use == "tls" else use)
    before = await pool.metric(name)
    mount(pool.folder / use, change)
    await pool.until("read again", lambda: pool.metric(name), lambda now: now > before)


async def test_good_token_is_served_and_anything_else_is_told_what_to_do(token_pool: SecuredPool, acme: str) -> None:
    """Missing, wrong, in another scheme, and with a header that names a tenant."""
    assert (await token_pool.caller(acme).quick()).seed == 1
    for caller, words in (
        (token_pool.caller(extra=SPOOF), "send one bearer token"),
        (token_pool.caller(extra=(("authorization", f"Basic {acme}"),)), "send one bearer token"),
        (token_pool.caller(new_token()), "not valid here, or no longer"),
        (token_pool.caller(acme[:-1]), "not valid here, or no longer"),
    ):
        code, said = await caller.refusal()
        assert (code, words in said) == ("UNAUTHENTICATED", True), said
        await caller.channel.close()
    assert await token_pool.metric('t2i_gateway_unauthenticated_total{reason="TokenUnknown"}') == 2


async def test_header_does_not_make_another_tenant(token_pool: SecuredPool, acme: str) -> None:
    """The same request id joins: it is the same tenant, whatever its headers say."""
    await token_pool.caller(acme).quick("an-id")
    assert (await token_pool.caller(acme, extra=SPOOF).quick("an-id")).replayed


async def test_certificate_changes_nothing_where_tokens_count(token_pool: SecuredPool, acme: str) -> None:
    """Token: a certificate beside it, a tenant's or a stranger's, is not even looked at; alone it proves nothing."""
    issue, good = token_pool.clients.issue, token_pool.caller(acme)
    await good.quick("beside-a-certificate")
    for certificate in (issue("spiffe://td/victim"), STRANGERS.issue("victim"), issue("a.example", "b.example")):
        both = token_pool.caller(acme, certificate)
        assert (await both.quick("beside-a-certificate")).replayed  # the same tenant: whom the token speaks for
        for token, words in (("", "send one bearer token"), (new_token(), "not valid here")):
            code, said = await token_pool.caller(token, certificate).refusal()
            assert (code, words in said) == ("UNAUTHENTICATED", True), said
        await both.channel.close()
    await good.channel.close()


async def test_revoked_token_is_refused_on_the_open_connection(token_pool: SecuredPool, acme: str) -> None:
    """Without a restart; the new token works at once, and the old one again when its line is back."""
    fresh, caller = new_token(), token_pool.caller(acme)
    await caller.quick()
    await reloaded(token_pool, "tokens", {"tokens": line_of(fresh, "acme").encode()})
    assert (await caller.refusal())[0] == "UNAUTHENTICATED"
    await token_pool.caller(fresh).quick()
    await reloaded(token_pool, "tokens", {"tokens": line_of(acme, "acme").encode()})
    await caller.quick()


async def test_tokens_that_cannot_be_read_change_nothing(token_pool: SecuredPool, acme: str) -> None:
    """A slip of the hand must not lock everybody out; it is counted and logged, without what was in the file."""
    await reloaded(token_pool, "tokens", {"tokens": f"{acme} acme".encode()}, "refused")
    await token_pool.caller(acme).quick()
    log = token_pool.gateway.log_path.read_text()
    assert "security.tokensSecretName: the changed contents cannot be used" in log
    assert acme not in log
    await reloaded(token_pool, "tokens", {"tokens": line_of(acme, "acme").encode()})


async def test_client_that_checks_the_gateway_refuses_a_false_one(token_pool: SecuredPool, acme: str) -> None:
    """Another authority, another name; nothing was served, so no token was read by anybody."""
    for caller, words in (
        (token_pool.caller(acme, roots=STRANGERS.pem), "CERTIFICATE_VERIFY_FAILED"),
        (token_pool.caller(acme, server_name="q-gateway.ns.svc"), "Hostname Verification Check failed"),
    ):
        code, said = await caller.refusal()
        assert (code, words in said) == ("UNAVAILABLE", True), said
        await caller.channel.close()


async def test_stream_goes_on_while_the_certificate_changes(token_pool: SecuredPool, acme: str) -> None:
    """Another authority from one moment to the next: who is connected stays, who connects needs the new one."""
    old, new = token_pool.clients, TestAuthority("new")
    caller = token_pool.caller(acme)
    call = caller.stub.Generate(_long(), timeout=60, metadata=caller.metadata)
    async with aclosing(call.__aiter__()) as events:
        assert (await anext(events)).HasField("accepted")
        await reloaded(token_pool, "tls", new.issue("p-gateway.ns.svc"))
        assert (await token_pool.caller(acme).refusal())[0] == "UNAVAILABLE"
        await token_pool.caller(acme, roots=new.pem).quick()
        last = [event async for event in events][-1]
    assert last.done.served.num_inference_steps == 20
    await reloaded(token_pool, "tls", old.issue("p-gateway.ns.svc"))
    await token_pool.caller(acme).quick()


async def test_half_a_pair_is_not_taken_up(token_pool: SecuredPool, acme: str) -> None:
    """A key of another certificate would fail every handshake."""
    one, other = (token_pool.clients.issue("p-gateway.ns.svc") for _ in range(2))
    await reloaded(token_pool, "tls", {**one, "tls.key": other["tls.key"]}, "refused")
    await token_pool.caller(acme).quick()
    await reloaded(token_pool, "tls", one)


async def test_expired_certificate_of_the_gateway_is_refused_and_shouted_about(
    token_pool: SecuredPool, acme: str
) -> None:
    """Clients refuse it; the log and the metric say so, and the next one is taken up."""
    await reloaded(token_pool, "tls", token_pool.clients.issue("p-gateway.ns.svc", ends=timedelta(minutes=-1)))
    code, said = await token_pool.caller(acme).refusal()
    assert (code, "certificate has expired" in said) == ("UNAVAILABLE", True), said
    assert "security.gatewayTlsSecretName: the certificate has expired" in token_pool.gateway.log_path.read_text()
    await reloaded(token_pool, "tls", token_pool.clients.issue("p-gateway.ns.svc"))
    await token_pool.caller(acme).quick()


async def test_certificate_names_the_tenant(mutual_pool: SecuredPool) -> None:
    """A SPIFFE ID or one DNS name; two certificates of one name are one tenant, of two names two."""
    issue = mutual_pool.clients.issue
    await mutual_pool.caller(certificate=issue("spiffe://td/acme", "any.example")).quick("an-id")
    assert (await mutual_pool.caller(certificate=issue("spiffe://td/acme"), extra=SPOOF).quick("an-id")).replayed
    assert not (await mutual_pool.caller(certificate=issue("acme.example")).quick("an-id")).replayed


async def test_token_changes_nothing_where_certificates_count(mutual_pool: SecuredPool) -> None:
    """MutualTLS: the tenant is the certificate's, whatever bearer token is sent; no token mends an unclear name."""
    issue = mutual_pool.clients.issue
    await mutual_pool.caller(certificate=issue("spiffe://td/acme")).quick("beside-a-token")
    both = mutual_pool.caller(VICTIM, issue("spiffe://td/acme"))
    assert (await both.quick("beside-a-token")).replayed
    assert not (await mutual_pool.caller(VICTIM, issue("spiffe://td/other")).quick("beside-a-token")).replayed
    code, said = await mutual_pool.caller(VICTIM, issue("a.example", "b.example")).refusal()
    assert (code, "exactly one" in said) == ("UNAUTHENTICATED", True), said


async def test_caller_without_a_good_certificate_does_not_connect(mutual_pool: SecuredPool) -> None:
    """None, another authority's, an expired one, a key that is another's; a token does not help."""
    issue, gone = mutual_pool.clients.issue, timedelta(minutes=-1)
    stolen = {**issue("acme.example"), "tls.key": issue("acme.example")["tls.key"]}
    for certificate in (None, STRANGERS.issue("acme.example"), issue("acme.example", ends=gone), stolen):
        caller = mutual_pool.caller(new_token(), certificate)
        assert (await caller.refusal())[0] == "UNAVAILABLE"
        await caller.channel.close()


async def test_unclear_certificate_is_unauthenticated(mutual_pool: SecuredPool) -> None:
    """Two DNS names, no name at all."""
    for names in (("a.example", "b.example"), ()):
        caller = mutual_pool.caller(certificate=mutual_pool.clients.issue(*names))
        code, said = await caller.refusal()
        assert (code, "exactly one" in said) == ("UNAUTHENTICATED", True), said


def _long() -> gateway_pb2.GenerateRequest:
    return gateway_pb2.GenerateRequest(prompt="a red circle", seed=1, exact=True)
