"""A program for tests: a path in a variable, one on PATH, in the cache folder, or Debian packages unpacked there."""

import fcntl
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from t2i_testing_kit.debian import DebianError, Say, cache_folder, library_folders, unpack_packages


class ProgramMissing(RuntimeError):
    """There is no such program and none can be had; the message says what to install or set."""


@dataclass(frozen=True, slots=True)
class FoundProgram:
    """`root` is the folder with all that was unpacked, None: the program is the machine's own."""

    path: Path
    root: Path | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What it is to be started with, beside the usual."""
        if self.root is None:
            return {}
        return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, library_folders(self.root)))}


@dataclass(frozen=True, slots=True)
class DebianProgram:
    """`setting` is the variable with its path, `packages` are choices in order, `unpacked` paths in their root."""

    name: str
    setting: str
    on_path: tuple[str, ...]
    packages: tuple[tuple[str, ...], ...]
    unpacked: tuple[str, ...]
    install: str

    def ensure(self, say: Say) -> FoundProgram:
        """Find it; fetch it if need be.

        Raises:
            ProgramMissing: there is none.
        """
        folder = cache_folder(self.name)
        found = self._installed() or self._unpacked(folder)
        if found is not None:
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may start at once: the second finds the first's
            return self._unpacked(folder) or self._fetch(folder, say)

    def _installed(self) -> FoundProgram | None:
        path = os.environ.get(self.setting)
        if path:
            if not os.access(path, os.X_OK):
                raise ProgramMissing(f"{self.setting}={path} is no program: correct it, or unset it")
            return FoundProgram(Path(path))
        paths = [path for name in self.on_path if (path := shutil.which(name)) is not None]
        return FoundProgram(Path(paths[0])) if paths else None

    def _unpacked(self, folder: Path) -> FoundProgram | None:
        root = folder / "root"
        found = [root / name for name in self.unpacked if (root / name).exists()]
        return FoundProgram(found[0], root) if found else None

    def _fetch(self, folder: Path, say: Say) -> FoundProgram:
        try:
            unpack_packages(folder, self.packages, say)
        except DebianError as error:
            raise ProgramMissing(f"{error}\n{self.install}") from error
        found = self._unpacked(folder)
        if found is None:
            raise ProgramMissing(f"apt has none of {', '.join(names[0] for names in self.packages)}\n{self.install}")
        return found


def print_program(program: DebianProgram) -> int:
    """Fetch it if need be and print where it is; the exit status."""

    def say(text: str) -> None:
        sys.stderr.write(f"{program.name}: {text}\n")

    try:
        sys.stdout.write(f"{program.ensure(say).path}\n")
    except ProgramMissing as error:
        say(str(error))
        return 1
    return 0
