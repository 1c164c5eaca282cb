"""`t2ictl token`: a bearer token for a tenant, and the line that makes gateways know it."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from t2i_runtime.errors import TokensUnusable
from t2i_runtime.tokens import line_of, new_token
from t2ictl.errors import InputInvalid
from t2ictl.running import console, told_in_a_line


def token(
    tenant: str,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="new file for the token; default: print it")] = None,
    tokens: Annotated[Path | None, typer.Option(help="file of digests to add the line to; default: print it")] = None,
) -> None:
    """Make a bearer token for a tenant, and the line for the Secret that spec.security.tokensSecretName names."""
    with told_in_a_line():
        make_token(console, tenant, out, tokens)


def make_token(console: Console, tenant: str, out: Path | None, tokens: Path | None) -> None:
    """Write both, or print what has no file.

    Raises:
        InputInvalid: not a tenant's name, or a file cannot be written.
    """
    made = new_token()
    try:
        line = line_of(made, tenant)
        if out is not None:
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{made}\n")
        if tokens is not None:
            with tokens.open("a") as file:
                file.write(f"{line}\n")
    except TokensUnusable as error:
        raise InputInvalid(str(error)) from error
    except OSError as error:
        raise InputInvalid(f"{error.filename} cannot be written: {error.strerror}") from error
    _tell(console, "token, for the tenant alone", made, out)
    _tell(console, "line, for the Secret's key `tokens`", line, tokens)


def _tell(console: Console, what: str, text: str, where: Path | None) -> None:
    shown = text if where is None else f"in {where}"
    console.print(f"{what}: {shown}", markup=False, highlight=False, soft_wrap=True)
