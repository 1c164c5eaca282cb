"""Whom a command calls and as whom, and the options that say so: the same for every command that calls a gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from t2ictl.client import GatewayClient, connect
from t2ictl.credentials import ProofOptions, load_proof
from t2ictl.forwarding import gateway_of
from t2ictl.local_pool import DEFAULT_LISTEN
from t2ictl.parameter_groups import with_group

NOBODY = ProofOptions()


@dataclass(frozen=True, slots=True)
class CallTarget:
    """A gateway's address, or a pool (`NAMESPACE/NAME`; empty = use the address), and how we prove who we are."""

    address: str
    pool: str = ""
    options: ProofOptions = NOBODY

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[GatewayClient]:
        """A client for the time of the block.

        Raises:
            InputInvalid, ClusterFailed: see `load_proof` and `gateway_of`.
        """
        proof = load_proof(self.options).for_pool(self.pool)
        async with gateway_of(self.pool, self.address) as reached, connect(reached, proof) as client:
            yield client


def _target(
    address: Annotated[str, typer.Option(envvar="T2I_ADDRESS", help="gateway address")] = DEFAULT_LISTEN,
    pool: Annotated[
        str, typer.Option("--pool", "-p", help="NAMESPACE/NAME of a pool in the cluster, not --address")
    ] = "",
    tenant: Annotated[str, typer.Option(help="tenant name, for gateways in local mode")] = "",
    ca: Annotated[
        Path | None, typer.Option(envvar="T2I_CA", help="authorities that signed the gateway's certificate; means TLS")
    ] = None,
    cert: Annotated[Path | None, typer.Option(envvar="T2I_CERT", help="client certificate, with --key")] = None,
    key: Annotated[Path | None, typer.Option(envvar="T2I_KEY", help="private key of --cert")] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="T2I_TOKEN_FILE", help="file with a bearer token; means TLS")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS with the system's authorities")] = False,
    server_name: Annotated[
        str,
        typer.Option(envvar="T2I_SERVER_NAME", help="name in the gateway's certificate, if the address has another"),
    ] = "",
) -> CallTarget:
    proof = ProofOptions(
        tenant=tenant, tls=tls, ca=ca, cert=cert, key=key, token_file=token_file, server_name=server_name
    )
    return CallTarget(address, pool, proof)


with_target = with_group("target", _target)
