"""Decide from an exception whether memory ran out, or the device is lost to this process, or neither.

After a fault (an illegal address, an assert in a kernel, an uncorrectable memory error) a CUDA context answers every
call with an error. Only a new process gets a new context. If the exception's text does not tell, a small computation on
the device does.
"""

import re

import torch

#: An older torch, which a base image may bring, has no such class.
_ACCELERATOR_ERRORS = getattr(torch, "AcceleratorError", ())
_OUT_OF_MEMORY = re.compile("out of memory|can't allocate memory|STATUS_ALLOC_FAILED|ErrorMemoryAllocation")
#: Texts of errors that come from a device or its libraries at all.
_OF_THE_DEVICE = re.compile(
    r"\b(CUDA|HIP|XPU|NCCL|cuDNN|MPS|device|driver)[ -](\w+ )?(error|assert)|CU\w+_STATUS_", re.I
)
#: Texts of errors after which the CUDA context does not recover.
_LOST = re.compile(
    "device-side assert|illegal memory access|illegal address|unspecified launch failure|misaligned address"
    "|illegal instruction|hardware stack error|invalid program counter|not supported on global/shared address space"
    "|uncorrectable|launch timed out|GPU is lost|fallen off the bus|busy or unavailable|no CUDA-capable device"
    "|context is destroyed|driver shutting down|device kernel image is invalid|_STATUS_EXECUTION_FAILED"
    "|_STATUS_MAPPING_ERROR|_STATUS_INTERNAL_ERROR",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """True if a smaller batch may succeed."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def is_device_lost(error: BaseException, device: torch.device) -> bool:
    """True if no later call of this process on the device can succeed."""
    if is_out_of_memory(error):
        return False
    text = str(error)
    if not isinstance(error, _ACCELERATOR_ERRORS) and not _OF_THE_DEVICE.search(text):
        return False
    return bool(_LOST.search(text)) or not _answers(device)


def _answers(device: torch.device) -> bool:
    try:
        return bool(torch.ones(1, device=device).add(1).item() == 2)
    except RuntimeError as error:
        return is_out_of_memory(error)  # a full device answers, too


def free_memory() -> None:
    """Return the memory that torch's allocator caches to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
