"""Where the Valkey server of tests and benchmarks comes from.

In this order: `VALKEY_SERVER` (a path), `valkey-server` or `redis-server` on PATH, the cache folder, Debian's packages
unpacked into the cache folder: valkey-server from the release or its backports, else redis-server. Nothing is installed
and no root is needed: apt downloads with lists of its own from the machine's own sources.
`python -m t2i_testing_kit.valkey.assets` (`make valkey-assets`) does it and prints the program in use.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("valkey-server", "redis-server")
APT_LIMIT_S = 300.0
Say = Callable[[str], None]


class ValkeyError(RuntimeError):
    """There is no server and none can be had; the message says what to install or set."""


@dataclass(frozen=True, slots=True)
class ValkeyProgram:
    """The server and the folder of its libraries (None: the system's)."""

    path: Path
    libraries: Path | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """How to start it, without arguments."""
        if self.libraries is None:
            return (str(self.path),)
        return ("/usr/bin/env", f"LD_LIBRARY_PATH={self.libraries}", str(self.path))


def cache_folder() -> Path:
    """Where unpacked packages are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "t2i-serving" / "valkey"


def ensure_valkey(say: Say) -> ValkeyProgram:
    """The server's program; fetches it if need be.

    Raises:
        ValkeyError: see there.
    """
    found = _installed() or _unpacked(cache_folder())
    if found is not None:
        return found
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may start at once: the second finds the first's
        return _unpacked(folder) or _fetch(folder, say)


def _installed() -> ValkeyProgram | None:
    setting = os.environ.get("VALKEY_SERVER")
    if setting:
        if not os.access(setting, os.X_OK):
            raise ValkeyError(f"VALKEY_SERVER={setting} is no program: correct it, or unset it")
        return ValkeyProgram(Path(setting))
    paths = [path for name in PROGRAMS if (path := shutil.which(name)) is not None]
    return ValkeyProgram(Path(paths[0])) if paths else None


def _unpacked(folder: Path) -> ValkeyProgram | None:
    for name in PROGRAMS:
        path = folder / "root" / "usr" / "bin" / name
        if path.exists():
            return ValkeyProgram(path, folder / "root" / "usr" / "lib" / f"{platform.machine()}-linux-gnu")
    return None


def _fetch(folder: Path, say: Say) -> ValkeyProgram:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ValkeyError(
            "Tests of the redis:// store need a real Valkey or Redis server (7 or newer). Install valkey-server or "
            "redis-server, or set VALKEY_SERVER to the program's path."
        )
    options = _write_apt(folder / "apt")
    say("fetching the package lists")
    _apt([*options, "update"])
    for name in PROGRAMS:
        say(f"fetching {name}")
        if _apt([*options, "install", "--download-only", "--no-install-recommends", "-y", name], check=False):
            break
    part = folder / "root.part"
    shutil.rmtree(part, ignore_errors=True)
    for package in sorted((folder / "apt" / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(part)], check=True, timeout=60)
    if part.exists():
        shutil.rmtree(folder / "root", ignore_errors=True)
        part.replace(folder / "root")
    shutil.rmtree(folder / "apt", ignore_errors=True)
    found = _unpacked(folder)
    if found is None:
        raise ValkeyError("apt has neither valkey-server nor redis-server: install one, or set VALKEY_SERVER")
    return found


def _write_apt(folder: Path) -> list[str]:
    """Folders and sources of our own: the machine's release, preferring backports, where Debian 12 has Valkey."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    wanted = {"Created-By": "Packages"}  # one line a suite, not one a file
    filters = [f"{key}: {value}" for key, value in wanted.items()]
    targets = _run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SIGNED_BY)", *filters]
    )
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
        raise ValkeyError(
            f"apt-get failed ({result.returncode}): {result.stderr[-500:].strip()}\nInstall valkey-server or "
            "redis-server by hand, or set VALKEY_SERVER to the program's path."
        )
    return result.returncode == 0


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _say(text: str) -> None:
    sys.stderr.write(f"valkey-assets: {text}\n")


def main() -> int:
    """Fetch the server if need be; print where it is."""
    try:
        program = ensure_valkey(_say)
    except ValkeyError as error:
        _say(str(error))
        return 1
    sys.stdout.write(f"{program.path}: {_run([*program.command, '--version']).strip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
