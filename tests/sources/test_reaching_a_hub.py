"""How a hub is reached is told by the environment: a mirror, a proxy, a token, authorities of one's own."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils import close_session

from played_hub import PlayedHub, played_hub
from t2i_sources import EMBEDDER, SourceUnreachable, find_folder
from t2i_testing_kit.mounted_secrets import TestAuthority

SOURCE = "hf://acme/encoder"
FILES = {"tokenizer.json": b"{}", "onnx/model.onnx": b"weights"}
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_TOKEN", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this machine's, and nothing of a client that another test has left."""
    for name in VARIABLES:
        for variable in (name, name.lower()):
            monkeypatch.setenv(variable, "")  # so that it is put back, whoever changes it
            monkeypatch.delenv(variable)
    close_session()
    yield
    close_session()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The file of a private authority, beside a certificate of it for localhost."""
    for name, data in TestAuthority("private").issue("localhost").items():
        (tmp_path / name).write_bytes(data)
    return tmp_path / "ca.crt"


@pytest.fixture
def secured_hub(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedHub]:
    """A mirror whose certificate only the private authority vouches for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.with_name("tls.crt"), authority.with_name("tls.key"))
    with played_hub("acme/encoder", FILES, context) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_private_authority_is_trusted_by_either_name(
    secured_hub: PlayedHub, authority: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """People set what their other programs read."""
    monkeypatch.setenv(variable, str(authority))
    assert (find_folder(EMBEDDER, SOURCE, tmp_path / "models") / "onnx/model.onnx").read_bytes() == b"weights"
    assert secured_hub.fetched == set(FILES)


def test_authority_that_is_not_named_is_not_trusted(secured_hub: PlayedHub, tmp_path: Path) -> None:
    """The message carries why, so that it is in the pool's condition."""
    with pytest.raises(SourceUnreachable, match=r"model\.embedder: .*certificate verify failed"):
        find_folder(EMBEDDER, SOURCE, tmp_path / "models")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_authorities_that_are_not_mounted_are_named(
    secured_hub: PlayedHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """A key of the ConfigMap that is called otherwise, for instance."""
    monkeypatch.setenv(variable, "/ca/none.crt")
    with pytest.raises(SourceUnreachable, match=rf"model\.embedder: {variable} names '/ca/none.crt'.*mount it"):
        find_folder(EMBEDDER, SOURCE, tmp_path / "models")


def test_hub_behind_a_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's name is the proxy's to find; the token goes along."""
    with played_hub("acme/encoder", FILES) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        find_folder(EMBEDDER, SOURCE, tmp_path / "models")
        assert proxy.hosts == {"hub.invalid"}
        assert proxy.tokens == {"Bearer hf_secret"}


def test_mirror_inside_is_not_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NO_PROXY names it."""
    with played_hub("acme/encoder", FILES) as mirror, played_hub("acme/encoder", FILES) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", mirror.endpoint)
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("NO_PROXY", "localhost")
        find_folder(EMBEDDER, SOURCE, tmp_path / "models")
        assert mirror.fetched == set(FILES)
        assert proxy.asked == []
