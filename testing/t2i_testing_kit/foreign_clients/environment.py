"""An environment of Python packages in the cache folder: LiteLLM with its proxy, and LangChain's community tools.

It is keyed by what `requirements.txt` beside this file says, and made once, by uv: `make foreign-clients`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
LIMIT_S = 1800.0
Say = Callable[[str], None]


class EnvironmentMissing(RuntimeError):
    """It cannot be made; the message says why."""


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Path(base) / "t2i-serving" / "foreign-clients" / f"{version}-{key}"


def ensure_environment(say: Say) -> Path:
    """Its folder of programs; makes it if need be.

    Raises:
        EnvironmentMissing: there is no uv, or a package cannot be had.
    """
    folder = cache_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may start at once: the second finds the first's
        if not (folder / "made").exists():
            _make(folder, say)
    return folder / "bin"


def _make(folder: Path, say: Say) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise EnvironmentMissing("clients of other people are tested from an environment that uv makes: `make install`")
    say(f"installing {len(REQUIREMENTS.read_text().splitlines())} packages into {folder}")
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    python = folder / "bin" / "python"
    for arguments in (
        ["venv", "--python", sys.executable, str(folder)],
        ["pip", "install", "--python", str(python), "--no-build", "--no-deps", "--requirement", str(REQUIREMENTS)],
    ):
        done = subprocess.run([uv, "--quiet", *arguments], timeout=LIMIT_S, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentMissing(f"uv {' '.join(arguments[:2])} failed:\n{done.stderr[-2000:]}")
    (folder / "made").touch()


def main() -> int:
    def say(text: str) -> None:
        sys.stderr.write(f"foreign-clients: {text}\n")

    try:
        sys.stdout.write(f"{ensure_environment(say)}\n")
    except EnvironmentMissing as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
