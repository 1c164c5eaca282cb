"""Where the programs of a real Kubernetes API server come from.

For each program, in this order: the folder `KUBEBUILDER_ASSETS` if it is set (what `setup-envtest` fills), the cache
folder, a build from Go modules into the cache folder. A build happens once per version, under a lock, one program after
the other. Each is put in place by a rename. So a build may be interrupted, repeated or started twice.
`python -m t2i_testing_kit.kube.assets` (`make kube-assets`) builds what is missing and prints the folders in use; with
`--node` also what a local node of `make e2e` needs.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from t2i_testing_kit.kube.sources import KUBERNETES, NODE_PROGRAMS, PROGRAMS, SOURCES, ProgramSource

FROM_KUBEBUILDER = ("etcd", "kube-apiserver", "kubectl")  # what every such folder holds
BUILD_LIMIT_S = 3600.0
SIGN_OF_LIFE_S = 20.0
Say = Callable[[str], None]


class AssetsError(RuntimeError):
    """The programs cannot be had; the message says what to install or set."""


def cache_folder() -> Path:
    """The cache of this version of Kubernetes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "t2i-serving" / "kube" / KUBERNETES


def ensure_assets(say: Say, programs: Sequence[str] = PROGRAMS) -> dict[str, Path]:
    """Program name -> path; builds what is missing.

    Raises:
        AssetsError: nothing to build with, a build failed, or `KUBEBUILDER_ASSETS` lacks a program.
    """
    found = _from_kubebuilder()
    missing = [name for name in programs if name not in found]
    folder = cache_folder()
    if not all((folder / name).is_file() for name in missing):
        _build(folder, missing, say)
    return {name: found.get(name, folder / name) for name in programs}


def _from_kubebuilder() -> dict[str, Path]:
    setting = os.environ.get("KUBEBUILDER_ASSETS")
    if not setting:
        return {}
    lacking = [name for name in FROM_KUBEBUILDER if not (Path(setting) / name).is_file()]
    if lacking:
        raise AssetsError(
            f"KUBEBUILDER_ASSETS={setting} lacks {', '.join(lacking)}. Fill it (setup-envtest use "
            f"{KUBERNETES.rpartition('.')[0]}) or unset it, so that the programs are built from Go modules."
        )
    return {name: path for name in (*PROGRAMS, *NODE_PROGRAMS) if (path := Path(setting) / name).is_file()}


def _build(folder: Path, names: list[str], say: Say) -> None:
    go = shutil.which("go")
    if go is None:
        raise AssetsError(
            "Tests of the operator need a real Kubernetes API server, and there is neither KUBEBUILDER_ASSETS nor Go. "
            "Install Go 1.24 or newer and run `make kube-assets` (once, some minutes), or set KUBEBUILDER_ASSETS to a "
            f"folder with {', '.join(FROM_KUBEBUILDER)}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / ".lock", say):
        for source in SOURCES:
            todo = {name: package for name, package in source.packages.items() if name in names}
            todo = {name: package for name, package in todo.items() if not (folder / name).is_file()}
            if todo:
                _build_source(go, source, todo, folder, say)


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    """Two test runs may start at once: the second waits for the first's build and then finds it."""
    end = time.monotonic() + BUILD_LIMIT_S
    with path.open("w") as file:
        waited = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise AssetsError(f"another build holds {path} for {BUILD_LIMIT_S:.0f} s: end it first") from None
                if not waited:
                    say("another process builds the Kubernetes programs: waiting for it")
                waited = True
                time.sleep(0.5)
            else:
                break
        yield


def _build_source(go: str, source: ProgramSource, todo: dict[str, str], folder: Path, say: Say) -> None:
    work = folder / "build" / source.name
    shutil.rmtree(work, ignore_errors=True)  # what an interrupted run left; modules and objects are in Go's caches
    work.mkdir(parents=True)
    say(f"{source.module} {source.version}: fetching modules".replace("  ", " "))
    _go(go, work, ["mod", "init", "example.local/assets"], say)
    _replace_staging(go, source, work, say)
    if source.main:
        (work / "main.go").write_text(source.main)
    if source.version:
        _go(go, work, ["get", *source.wanted(todo)], say)
    for name, package in todo.items():
        start = time.monotonic()
        say(f"{name}: compiling")
        built = work / name
        flags = ["-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", source.ldflags]
        _go(go, work, ["build", *flags, "-o", str(built), package], say)
        built.replace(folder / name)
        size_mib = (folder / name).stat().st_size >> 20
        say(f"{name}: built in {time.monotonic() - start:.0f} s, {size_mib} MiB")
    shutil.rmtree(work, ignore_errors=True)


def _replace_staging(go: str, source: ProgramSource, work: Path, say: Say) -> None:
    """The module of Kubernetes points into its own tree for parts that are published as v0.x."""
    if source.module != "k8s.io/kubernetes":
        return
    at = f"{source.module}@{source.version}"
    where = json.loads(_go(go, work, ["mod", "download", "-json", at], say))["GoMod"]
    parts = re.findall(r"^\s*(k8s\.io/[a-z-]+) => \./staging/", Path(where).read_text(), re.MULTILINE)
    published = f"v0.{source.version.removeprefix('v1.')}"
    _go(go, work, ["mod", "edit", f"-require={at}", *(f"-replace={part}={part}@{published}" for part in parts)], say)


def _go(go: str, work: Path, arguments: list[str], say: Say) -> str:
    """One go command, with a sign of life for people who wait; its output."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
    log = work / "go.log"
    start = time.monotonic()
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [go, *arguments], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        while True:
            try:
                output, _ = process.communicate(timeout=SIGN_OF_LIFE_S)  # and then again
                break
            except subprocess.TimeoutExpired:
                passed_s = time.monotonic() - start
                say(f"  still at go {arguments[0]}, {passed_s:.0f} s")
                if passed_s > BUILD_LIMIT_S:
                    process.kill()
    if process.returncode != 0:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise AssetsError(
            f"go {' '.join(arguments[:2])} failed ({process.returncode}):\n{tail}\nRun it again to resume."
        )
    return output


def main() -> int:
    """Build what is missing; print where each program is."""
    start = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - start:5.0f} s] {text}\n")

    try:
        programs = (*PROGRAMS, *NODE_PROGRAMS) if "--node" in sys.argv[1:] else PROGRAMS
        for name, path in ensure_assets(say, programs).items():
            sys.stdout.write(f"{name}: {path}\n")
    except AssetsError as error:
        sys.stderr.write(f"kube-assets: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
