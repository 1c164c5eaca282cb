"""Errors of the simulator.

SimulatorError                 its message names the file, the line or the option, and the next step
├── TraceInvalid               an arrivals or prompts file cannot be used
├── ProfileMissing             a worker group's profile cannot be found or read
└── EmbedderMissing            nothing can embed the prompts
"""


class SimulatorError(Exception):
    """Root of the tree."""


class TraceInvalid(SimulatorError):
    """An arrivals or prompts file cannot be used."""


class ProfileMissing(SimulatorError):
    """A worker group's profile cannot be found or read."""


class EmbedderMissing(SimulatorError):
    """Nothing can embed the prompts."""
