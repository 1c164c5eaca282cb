"""Errors of the simulator.

SimulatorError
├── TraceInvalid
├── ProfileMissing
├── EmbedderMissing
└── UnknownPolicy
"""


class SimulatorError(Exception):
    """Its message names the file, the line or the option, and the next step."""


class TraceInvalid(SimulatorError):
    """Raised when a file of arrivals or prompts cannot be used."""


class ProfileMissing(SimulatorError):
    """Raised when the profile of a worker group cannot be found or read."""


class EmbedderMissing(SimulatorError):
    """Raised when no installed encoder can embed the prompts."""


class UnknownPolicy(SimulatorError):
    """Raised when no policy has this name; the message lists those that exist."""
