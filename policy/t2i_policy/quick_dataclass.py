"""Frozen values that are born often: several for every request, and one for every change of a worker.

A frozen dataclass writes each field past its own guard, which costs five times a plain write. That was a tenth of what
a request costs the simulator. So these are frozen to mypy, which reads all of our code, and plain when it runs. They
compare, hash and are replaced as frozen ones do.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as quick_dataclass
else:
    from dataclasses import dataclass

    def quick_dataclass(*, frozen: bool, slots: bool):
        return dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["quick_dataclass"]
