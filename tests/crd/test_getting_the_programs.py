"""Where the programs of the test server come from: an assets folder, the cache, one build; or a clear failure.

Go is a script here that notes what it is asked for; everything around it is real.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_testing_kit.kube.assets import FROM_KUBEBUILDER, AssetsError, cache_folder, ensure_assets
from t2i_testing_kit.kube.sources import NODE_PROGRAMS, PROGRAMS

FAKE_GO = """#!/bin/sh
folder=$(dirname "$0")
case "$1 $2" in
  "mod download") echo 'k8s.io/api => ./staging/src/k8s.io/api' > "$folder/k8s.mod"
                  echo "{\\"GoMod\\": \\"$folder/k8s.mod\\"}" ;;
  build*) while [ "$1" != -o ]; do shift; done
          if [ "$(basename "$2")" = "$(cat "$folder/broken" 2>/dev/null)" ]; then echo 'cannot compile' >&2; exit 1; fi
          sleep 0.05; echo "$(basename "$2")" >> "$folder/built"; echo program > "$2" ;;
esac
"""


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a folder with `go` (first on PATH), which notes in `built` what it built."""
    folder = tmp_path / "go"
    folder.mkdir()
    (folder / "go").write_text(FAKE_GO)
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return folder


def built(go: Path) -> list[str]:
    """Programs in the order of their builds."""
    return (go / "built").read_text().split()


def test_built_once(go: Path) -> None:
    """The first call builds, the second finds."""
    said: list[str] = []
    found = ensure_assets(said.append)
    assert found == {name: cache_folder() / name for name in PROGRAMS}
    assert all(path.is_file() for path in found.values())
    assert any(text.startswith("kube-apiserver: built in") for text in said)  # people see that it moves
    ensure_assets(said.append)
    assert sorted(built(go)) == sorted(PROGRAMS)


def test_a_node_is_built_only_when_asked_for(go: Path) -> None:
    """Tests of an API server do not wait for a kubelet; with one, nothing is built twice."""
    ensure_assets(lambda _: None)
    assert not set(built(go)) & set(NODE_PROGRAMS)
    found = ensure_assets(lambda _: None, (*PROGRAMS, *NODE_PROGRAMS))
    assert all(path.is_file() for path in found.values())
    assert sorted(built(go)) == sorted((*PROGRAMS, *NODE_PROGRAMS))


def test_two_at_once_build_once(go: Path) -> None:
    """Two test runs that start together on an empty cache do not build twice, nor see half a program."""
    command = [sys.executable, "-m", "t2i_testing_kit.kube.assets"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        output, errors = one.communicate(timeout=180)
        assert one.returncode == 0, errors
        assert f"helm: {cache_folder() / 'helm'}" in output
    assert sorted(built(go)) == sorted(PROGRAMS)


def test_resumes(go: Path) -> None:
    """What was built before a failure is kept, and the failure says which command and why."""
    (go / "broken").write_text("kubectl")
    with pytest.raises(AssetsError, match=r"go build -mod=mod failed \(1\):\ncannot compile"):
        ensure_assets(lambda _: None)
    assert built(go) == ["etcd", "kube-apiserver"]
    (go / "broken").unlink()
    ensure_assets(lambda _: None)
    assert built(go) == ["etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "helm"]


def test_assets_folder_comes_first(go: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what it does not hold is built."""
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in FROM_KUBEBUILDER:
        (assets / name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    found = ensure_assets(lambda _: None)
    assert {name for name, path in found.items() if path.parent == assets} == set(FROM_KUBEBUILDER)
    assert sorted(built(go)) == ["helm", "kube-controller-manager"]


def test_incomplete_assets_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody meant that folder: it is not passed over in silence."""
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(AssetsError, match=r"lacks etcd, kube-apiserver, kubectl\. Fill it .* or unset it"):
        ensure_assets(lambda _: None)


def test_without_go_the_message_says_what_to_do(go: Path) -> None:
    """Never a skip: what is missing, and both ways to get it."""
    (go / "go").unlink()
    os.environ["PATH"] = str(go)  # a Go of the machine must not be found; monkeypatch restores it
    with pytest.raises(AssetsError, match=r"Install Go 1\.24 or newer and run `make kube-assets`.*KUBEBUILDER_ASSETS"):
        ensure_assets(lambda _: None)
