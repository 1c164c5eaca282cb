"""Debian's packages, unpacked into a folder: nothing is installed and no root is needed.

apt downloads with lists of its own from the machine's own sources. What the machine has installed already is not
fetched again.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

APT_LIMIT_S = 300.0
Say = Callable[[str], None]


class DebianError(RuntimeError):
    """A package cannot be had here; the message says why."""


def cache_folder(name: str) -> Path:
    """Where unpacked packages are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "t2i-serving" / name


def library_folders(root: Path) -> list[Path]:
    """Where unpacked packages have their shared libraries."""
    machine = f"{platform.machine()}-linux-gnu"
    return [root / "usr" / "lib" / machine, root / "lib" / machine, root / "usr" / "lib" / machine / "pulseaudio"]


def unpack_packages(folder: Path, choices: Sequence[Sequence[str]], say: Say) -> None:
    """Unpack the first of `choices` that there is, with what it needs, into `folder`/root.

    Raises:
        DebianError: this machine has no apt, or apt has none of them.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DebianError("there is no apt on this machine")
    options = _write_apt(folder / "apt")
    say("fetching the package lists")
    _apt([*options, "update"])
    for names in choices:
        say(f"fetching {' '.join(names)}")
        if _apt([*options, "install", "--download-only", "--no-install-recommends", "-y", *names], check=False):
            break
    part = folder / "root.part"
    shutil.rmtree(part, ignore_errors=True)
    for package in sorted((folder / "apt" / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(part)], check=True, timeout=60)
    if part.exists():
        shutil.rmtree(folder / "root", ignore_errors=True)
        part.replace(folder / "root")
    shutil.rmtree(folder / "apt", ignore_errors=True)


def run(command: Sequence[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _write_apt(folder: Path) -> list[str]:
    """Folders and sources of our own: the machine's release, preferring backports, where Debian 12 has Valkey."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    wanted = {"Created-By": "Packages"}  # one line a suite, not one a file
    filters = [f"{key}: {value}" for key, value in wanted.items()]
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)", *filters])
    lines: dict[str, None] = {}
    for target in targets.splitlines():
        uri, release, component, *keys = target.split()
        signed = f"[signed-by={keys[0]}] " if keys and keys[0].startswith("/") else ""
        if component == "main":
            lines[f"deb {signed}{uri} {release} main"] = None
            if "-" not in release and uri.rstrip("/").endswith("/debian"):
                lines[f"deb {signed}{uri} {release}-backports main"] = None
    (folder / "sources.list").write_text("\n".join(lines) + "\n")
    (folder / "preferences").write_text("Package: *\nPin: release a=*-backports\nPin-Priority: 500\n")
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": folder / "preferences",
        "Dir::State": folder / "state",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": "1",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _apt(arguments: list[str], check: bool = True) -> bool:
    result = subprocess.run(
        ["apt-get", "-q", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=APT_LIMIT_S,
        check=False,
    )
    if check and result.returncode != 0:
        raise DebianError(f"apt-get failed ({result.returncode}): {result.stderr[-500:].strip()}")
    return result.returncode == 0
