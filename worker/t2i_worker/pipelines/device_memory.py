"""What a piece of work takes of the device's memory, and what the device has left for this process."""

from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Protocol

import torch

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
HOST_FACTOR = 2.0  # what loading and drawing take in the host's memory, in sizes of the weights
SPARE_FRACTION = 0.05  # of the room, for fragments and libraries that allocate by themselves


class MemoryMeter(Protocol):
    def begin(self) -> None:
        """Work begins whose memory is to be known."""

    def taken_bytes(self) -> float:
        """The most that has been taken since, beyond what was held then."""

    def room_bytes(self) -> float:
        """What is free on the device, or cached by torch for this process."""


class NoMeter:
    """A CPU's memory is the pod's affair."""

    def begin(self) -> None:
        pass

    def taken_bytes(self) -> float:
        return 0.0

    def room_bytes(self) -> float:
        return inf


class CudaMeter:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held_bytes = 0

    def begin(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._held_bytes = torch.cuda.memory_allocated(self._device)

    def taken_bytes(self) -> float:
        return torch.cuda.max_memory_allocated(self._device) - self._held_bytes

    def room_bytes(self) -> float:
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)


def meter_for(device: torch.device) -> MemoryMeter:
    return CudaMeter(device) if device.type == "cuda" else NoMeter()


def fits_beside(batch_bytes: float, decode_bytes: float, room_bytes: float) -> bool:
    """Whether a batch leaves room for one decode at the same time; decodes run one by one."""
    return batch_bytes + decode_bytes <= (1 - SPARE_FRACTION) * room_bytes


def fits_another(weights_bytes: float, device: torch.device) -> bool:
    """Whether a further model can be loaded beside those that are. On a GPU its batches are taken to need what those of
    the present model left in torch's cache.
    """
    if device.type != "cuda":
        return HOST_FACTOR * weights_bytes <= host_room_bytes()
    batches = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return weights_bytes + batches <= (1 - SPARE_FRACTION) * CudaMeter(device).room_bytes()


def host_room_bytes() -> float:
    """Memory of the machine, or of the container where that is less, which this process may still take."""
    room = inf
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
        room = 1024.0 * int(line.split()[1])
    with suppress(OSError, ValueError, KeyError):  # no limit, or another version of control groups
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        room = min(room, limit - used + int(stat["inactive_file"]))
    return room
