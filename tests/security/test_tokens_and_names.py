"""What a file of tokens says, and which tenant a certificate speaks for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_gateway.identity import Identities
from t2i_runtime.errors import CallerUnknown, TokensUnusable, UnknownReason
from t2i_runtime.tls.names import has_name, tenant_of_certificate
from t2i_runtime.tokens import TokenBook, digest_of, line_of, new_token, parse_tokens, read_tokens

TOKEN = new_token()
SUBJECT = {"x509_subject": [b"CN=not-a-tenant"], "x509_common_name": [b"not-a-tenant"]}


def test_token_speaks_for_its_tenant_and_no_other_token_does() -> None:
    """Comments and blank lines say nothing; several tokens may speak for one tenant."""
    other = new_token()
    book = parse_tokens(f"# tokens\n\n{line_of(TOKEN, 'acme')}\n  {line_of(other, 'acme')}\n")
    assert (book.tenant_of(TOKEN), book.tenant_of(other), book.tenant_of(new_token())) == ("acme", "acme", None)
    assert book.tenant_of(digest_of(TOKEN)) is None, "what the file holds must not be a token"


@given(st.text(max_size=60))
def test_nothing_else_is_a_token(text: str) -> None:
    """Whatever is sent, odd unicode too."""
    assert parse_tokens(line_of(TOKEN, "acme")).tenant_of(text) == ("acme" if text == TOKEN else None)


@pytest.mark.parametrize(
    "line",
    [
        TOKEN,
        f"{TOKEN} acme",
        f"sha256:{digest_of(TOKEN)}",
        f"sha256:{digest_of(TOKEN)[:-1]} acme",
        f"sha256:{digest_of(TOKEN)} two words",
        f"sha256:{digest_of(TOKEN)} anonymous",
    ],
    ids=["token", "token and tenant", "no tenant", "short digest", "two words", "anonymous"],  # the token is random
)
def test_bad_line_is_named_by_number_and_never_shown(line: str) -> None:
    """Somebody who put a token itself into the file must not find it in a log."""
    with pytest.raises(TokensUnusable, match="line 3") as caught:
        parse_tokens(f"# one\n{line_of(new_token(), 'b')}\n{line}\n")
    assert TOKEN not in str(caught.value)


def test_token_of_two_tenants_is_refused() -> None:
    """It would be whoever's line is read first."""
    with pytest.raises(TokensUnusable, match="line 2"):
        parse_tokens(f"{line_of(TOKEN, 'a')}\n{line_of(TOKEN, 'b')}")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "create the Secret"),
        (b"# \xff", "not text"),
        (b"#" * (1 << 20) + b"\n", "larger than 1 MiB"),
    ],
    ids=["missing", "bytes", "too large"],
)
def test_unusable_file_is_told_with_its_path(tmp_path: Path, data: bytes | None, told: str) -> None:
    """Nobody is let in by a file that was not read whole."""
    if data is not None:
        (tmp_path / "tokens").write_bytes(data)
    with pytest.raises(TokensUnusable, match=told) as caught:
        read_tokens(tmp_path)
    assert str(tmp_path / "tokens") in str(caught.value)


@pytest.mark.parametrize(
    ("names", "tenant"),
    [
        ({"peer_uri": [b"spiffe://td/acme"]}, "spiffe://td/acme"),
        ({"peer_uri": [b"spiffe://td/acme"], "peer_dns": [b"a.example", b"b.example"]}, "spiffe://td/acme"),
        ({"peer_dns": [b"acme.example"]}, "acme.example"),
    ],
)
def test_certificate_names_its_tenant(names: dict[str, list[bytes]], tenant: str) -> None:
    """The only URI name, else the only DNS name."""
    assert tenant_of_certificate({**SUBJECT, **names}) == tenant


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({}, UnknownReason.NO_CERTIFICATE),
        ({"transport_security_type": [b"ssl"]}, UnknownReason.NO_CERTIFICATE),
        (SUBJECT, UnknownReason.NAME_UNCLEAR),
        ({**SUBJECT, "peer_dns": [b"a", b"b"]}, UnknownReason.NAME_UNCLEAR),
        ({**SUBJECT, "peer_uri": [b"spiffe://a/b", b"spiffe://a/c"], "peer_dns": [b"a"]}, UnknownReason.NAME_UNCLEAR),
        ({**SUBJECT, "peer_dns": [b"*.example"]}, UnknownReason.NAME_UNCLEAR),
        ({**SUBJECT, "peer_dns": [b"anonymous"]}, UnknownReason.NAME_UNCLEAR),
        ({**SUBJECT, "peer_uri": [b"spiffe://a/" + b"b" * 200]}, UnknownReason.NAME_UNCLEAR),
    ],
)
def test_unclear_certificate_is_nobody(context: dict[str, list[bytes]], reason: UnknownReason) -> None:
    """The common name never counts, and nothing is guessed."""
    with pytest.raises(CallerUnknown) as caught:
        tenant_of_certificate(context)
    assert caught.value.reason is reason


def test_peer_is_known_by_its_whole_name() -> None:
    """No prefix, no wildcard."""
    context = {"peer_dns": [b"p-gateway.ns.svc"], "peer_uri": [b"spiffe://td/p"]}
    assert has_name(context, "p-gateway.ns.svc")
    assert has_name(context, "spiffe://td/p")
    assert not any(has_name(context, name) for name in ("p-gateway", "gateway.ns.svc", "", "spiffe://td/p/x"))


BOOK = parse_tokens(line_of(TOKEN, "acme"))
SPOOF = ("x-t2i-tenant", "victim")


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([SPOOF], UnknownReason.NO_TOKEN),
        ([("authorization", TOKEN)], UnknownReason.NO_TOKEN),
        ([("authorization", f"Basic {TOKEN}")], UnknownReason.NO_TOKEN),
        ([("authorization", "Bearer ")], UnknownReason.NO_TOKEN),
        ([("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")], UnknownReason.NO_TOKEN),
        ([("authorization", f"Bearer {TOKEN}x")], UnknownReason.TOKEN_UNKNOWN),
        ([("authorization", f"Bearer {new_token()}"), SPOOF], UnknownReason.TOKEN_UNKNOWN),
    ],
)
def test_caller_without_a_good_token_is_nobody(metadata: list[tuple[str, str]], reason: UnknownReason) -> None:
    """No token, another scheme, two tokens, a wrong one; a header changes nothing."""
    with pytest.raises(CallerUnknown) as caught:
        Identities("Token", lambda: BOOK).tenant_of(metadata, dict)
    assert caught.value.reason is reason


def test_header_is_believed_in_local_mode_alone() -> None:
    """Elsewhere it is noise."""
    good = [("authorization", f"bearer {TOKEN}"), SPOOF]
    assert Identities("Token", lambda: BOOK).tenant_of(good, dict) == "acme"
    assert Identities("None").tenant_of(good, dict) == "anonymous"
    assert Identities("MutualTLS").tenant_of(good, lambda: {**SUBJECT, "peer_dns": [b"x.y"]}) == "x.y"
    assert Identities("Local").tenant_of(good, dict) == "victim"


def test_only_known_tenants_may_call_where_they_are_listed() -> None:
    """A good proof of a tenant that the pool does not serve."""
    with pytest.raises(CallerUnknown) as caught:
        Identities("Token", lambda: BOOK, frozenset({"other"})).tenant_of([("authorization", f"Bearer {TOKEN}")], dict)
    assert caught.value.reason is UnknownReason.TENANT_NOT_ALLOWED


def test_nobody_may_call_with_an_empty_file() -> None:
    """It is not the same as no authentication."""
    assert parse_tokens("\n# none\n") == TokenBook({})
