"""The one cgroup of a local cluster, in every hierarchy (v1) or in the unified one (v2)."""

import os
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
EMPTY_WITHIN_S = 10.0
#: All pods together count as four processes of the host: as one they would starve beside a test run or an editor.
WEIGHT = 4


def make_cgroup(name: str) -> None:
    """Where the kubelet puts its pods."""
    if (ROOT / "cgroup.controllers").exists():
        (ROOT / name).mkdir(exist_ok=True)
        for controller in (ROOT / name / "cgroup.controllers").read_text().split():
            with suppress(OSError):  # some cannot be handed down; the kubelet says which it misses
                (ROOT / name / "cgroup.subtree_control").write_text(f"+{controller}")
        (ROOT / name / "cpu.weight").write_text(str(100 * WEIGHT))
        return
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for fields in mounts:
        if fields[2] == "cgroup" and fields[1].startswith(f"{ROOT}/"):
            Path(fields[1], name).mkdir(exist_ok=True)
            shares = Path(fields[1], name, "cpu.shares")
            if shares.exists():
                shares.write_text(str(1024 * WEIGHT))


def remove_cgroup(name: str) -> None:
    """With all below it; the kernel needs a moment after the last process."""
    for root in (ROOT, *(path for path in ROOT.iterdir() if path.is_dir())):
        _remove(root / name)


def _remove(top: Path) -> None:
    end = time.monotonic() + EMPTY_WITHIN_S
    while top.exists():
        try:
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
