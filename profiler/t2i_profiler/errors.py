"""Errors of the profiler.

ProfilerError
├── SamplesInvalid             prompts, samples or options cannot be used
├── MeasurementFailed          a worker answered with an error status
├── JudgeUnusable              a judge's address, weights or packages cannot be used
└── JudgeFailed                a judge gave no scores, or not such as it said
"""


class ProfilerError(Exception):
    """Root of the tree; messages are one line with the next step."""


class SamplesInvalid(ProfilerError):
    """A file or option cannot be used."""


class JudgeUnusable(ProfilerError):
    """A judge cannot be loaded."""


class JudgeFailed(ProfilerError):
    """A judge gave no scores."""


class MeasurementFailed(ProfilerError):
    """`code` is the gRPC code's name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
