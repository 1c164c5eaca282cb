"""Errors of the simulator.

SimulatorError                 its message names the file, the line or the option, and the next step
├── TraceInvalid               an arrivals or prompts file cannot be used
├── ProfileMissing             a worker group's profile cannot be found or read
└── EmbedderMissing            nothing can embed the prompts
"""


class SimulatorError(Exception):
    """Root of the tree."""


class TraceInvalid(SimulatorError):
    """See the tree."""


class ProfileMissing(SimulatorError):
    """See the tree."""


class EmbedderMissing(SimulatorError):
    """See the tree."""
