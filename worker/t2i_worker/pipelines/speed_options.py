"""Which speed-ups a pool wants."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """`compile`: the denoiser compiled, and CUDA graphs of it. `attention`: the fastest kernel of the device."""

    compile: bool = False
    attention: bool = False
