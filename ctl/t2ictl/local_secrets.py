"""Secrets that a local pool's gateway reads: a folder of files for each, looked at before a model is loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from t2i_api.parse import PoolError
from t2i_api.pool import PoolSpec
from t2i_gateway.results import read_keys
from t2i_gateway.safety.secret import read_endpoint_secret
from t2i_gateway.signing import read_signing_pair
from t2i_runtime.errors import SecurityError
from t2ictl.errors import InputInvalid


class NamedSecret(NamedTuple):
    """A Secret that a field of the spec names, the gateway's option for its folder, and what reads it."""

    field: str
    name: str
    option: str
    read: Callable[[Path], object]


def check_secrets(spec: PoolSpec, secrets: Path | None, *, with_http: bool) -> None:
    """`secrets` holds a folder for each Secret. `with_http`: the gateway serves HTTP, which alone keeps images.

    Raises:
        InputInvalid: one is missing or unusable; names the field and the folder.
    """
    for secret in _named_secrets(spec):
        if secret.read is read_keys and not with_http:
            continue
        if secrets is None:
            text = f"names the Secret {secret.name}: give a folder that has its files in {secret.name}/ with --secrets"
            raise InputInvalid(f"{secret.field} {text}")
        folder = secrets / secret.name
        if not folder.is_dir():
            raise InputInvalid(f"{secret.field}: there is no folder {folder}: make it, with a file for each key")
        try:
            secret.read(folder)
        except SecurityError as error:
            raise InputInvalid(f"{secret.field}: {error}") from error
        except PoolError as error:  # the library that it is for is not there
            raise InputInvalid(str(error)) from error


def secret_arguments(spec: PoolSpec, secrets: Path | None) -> list[str]:
    """What a gateway is started with."""
    if secrets is None:
        return []
    return [f"{secret.option}={secrets / secret.name}" for secret in _named_secrets(spec)]


def _named_secrets(spec: PoolSpec) -> Iterator[NamedSecret]:
    for place, part in spec.safety.checks.items():
        if part.secret_name:
            yield NamedSecret(
                f"safety.{place}.secretName", part.secret_name, f"--safety-{place}-dir", read_endpoint_secret
            )
    if spec.provenance.c2pa is not None:
        name = spec.provenance.c2pa.secret_name
        yield NamedSecret("provenance.c2pa.secretName", name, "--c2pa-dir", read_signing_pair)
    results = spec.gateway.results
    if results is not None and results.secret_name:
        yield NamedSecret("gateway.results.secretName", results.secret_name, "--results-dir", read_keys)
