"""What people type: `t2ictl` against a pool with security on, and a pool that nobody has secured yet."""

import asyncio
import os
import stat
import sys
from pathlib import Path

import grpc
import pytest

from t2i_protos.v1 import gateway_pb2
from t2i_runtime.tokens import read_tokens
from t2i_testing_kit.secured_pool import GATEWAY, SecuredPool
from t2ictl.credentials import ProofOptions
from t2ictl.errors import CtlError
from t2ictl.target import CallTarget

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
LIMIT_S = 180.0


async def t2ictl(*arguments: str) -> tuple[int, str]:
    """Exit code and everything it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "t2ictl", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200"},
    )
    async with asyncio.timeout(LIMIT_S):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_token_file_and_authority_get_an_image(token_pool: SecuredPool, acme: str, tmp_path: Path) -> None:
    """And without the token it is said what is missing."""
    (tmp_path / "ca.crt").write_bytes(token_pool.clients.pem)
    (tmp_path / "token").write_text(f"{acme}\n")
    call = ("generate", "a red circle", "--steps", "1", "-o", str(tmp_path / "a.png"))
    there = ("--address", token_pool.gateway.address)
    ca, name = ("--ca", str(tmp_path / "ca.crt")), ("--server-name", GATEWAY)
    token = ("--token-file", str(tmp_path / "token"))
    code, said = await t2ictl(*call, *there, *ca, *name, *token)
    assert code == 0, said
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    code, said = await t2ictl(*call, *there, *ca, *name)
    assert (code, "UNAUTHENTICATED: send one bearer token" in said) == (1, True), said


async def test_wrong_proof_is_told_with_the_next_step(token_pool: SecuredPool, acme: str, tmp_path: Path) -> None:
    """The mistakes that everybody makes first; no token is ever repeated."""
    ca, token, wrong = (tmp_path / name for name in ("ca.crt", "token", "wrong"))
    ca.write_bytes(token_pool.clients.pem)
    token.write_text(acme)
    wrong.write_text("t2i_wrong")
    check = "check --ca, --cert, --key and --server-name"
    for options, words in (
        (ProofOptions(ca=ca, server_name=GATEWAY, token_file=wrong), "UNAUTHENTICATED: the bearer token is not valid"),
        (ProofOptions(ca=ca, server_name="q-gateway.ns.svc", token_file=token), check),
        (ProofOptions(tls=True, server_name=GATEWAY, token_file=token), check),
        (ProofOptions(), "if it wants TLS, give --ca or --tls"),
        (ProofOptions(cert=ca), "--cert and --key belong together"),
        (ProofOptions(token_file=tmp_path / "none"), "--token-file: "),
        (ProofOptions(token_file=ca), "--token-file must hold one token and nothing else"),
    ):
        with pytest.raises(CtlError) as caught:
            async with CallTarget(token_pool.gateway.address, options=options).connected() as client:
                await client.explain(gateway_pb2.ExplainRequest().request, 20)
        assert words in str(caught.value)
        assert acme not in str(caught.value)


async def test_made_token_fits_the_file_of_tokens(tmp_path: Path) -> None:
    """The line goes to the Secret, the token to the tenant; a file that is there is not overwritten."""
    out, tokens = tmp_path / "acme.token", tmp_path / "tokens"
    made = ("token", "acme", "--out", str(out), "--tokens", str(tokens))
    code, said = await t2ictl(*made)
    assert code == 0, said
    token = out.read_text().strip()
    assert read_tokens(tmp_path).tenant_of(token) == "acme"
    assert token not in said + tokens.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert (await t2ictl(*made))[0] == 1
    assert out.read_text().strip() == token


async def test_unsecured_pool_has_one_tenant_and_says_so(tmp_path: Path) -> None:
    """The default of a first pool: it serves, believes no header, and both logs tell what is open."""
    async with SecuredPool(tmp_path, {}) as pool:
        one, other = (pool.caller(extra=(("x-t2i-tenant", name),)) for name in ("one", "other"))
        await one.quick("an-id")
        assert (await other.quick("an-id")).replayed, "two names, one tenant"
        for caller in (one, other):
            await caller.channel.close()
        log = pool.gateway.log_path.read_text()
        assert "INSECURE: spec.security.clientAuthentication is None" in log
        assert "INSECURE: spec.security.workerTlsSecretName is not set" in log
        assert "INSECURE: no --tls-dir" in pool.worker.log_path.read_text()
        with pytest.raises(grpc.aio.AioRpcError):
            await pool.caller().generate("")
