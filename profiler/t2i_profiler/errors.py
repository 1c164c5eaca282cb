"""Errors of the profiler.

ProfilerError
├── SamplesInvalid             prompts, samples or options cannot be used
└── MeasurementFailed          a worker answered with an error status
"""


class ProfilerError(Exception):
    """Root of the tree; messages are one line with the next step."""


class SamplesInvalid(ProfilerError):
    """A file or option cannot be used."""


class MeasurementFailed(ProfilerError):
    """`code` is the gRPC code's name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
