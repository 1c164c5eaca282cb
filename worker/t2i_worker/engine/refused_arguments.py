"""What a pipeline raises for arguments that it does not take, told by the fields of the request."""

from typing import Any

from t2i_runtime.errors import Violation
from t2i_worker.errors import JobInvalid
from t2i_worker.jobs import Job

#: What pipelines raise then.
REFUSALS = (ValueError, TypeError, IndexError, AttributeError, NotImplementedError)


def refused_arguments(job: Job, error: BaseException) -> JobInvalid | None:
    """Arguments of the client's own choice that the pipeline refuses are no fault of the worker."""
    drawing = job.drawing
    own = not drawing.is_measured or job.size is not None
    if not own or not isinstance(error, REFUSALS):
        return None
    given: dict[str, Any] = {"drawing.sampler": drawing.sampler, "drawing.images": drawing.images}
    given |= {"width": job.size, **{f"drawing.arguments[{name!r}]": True for name in drawing.arguments}}
    names = [name for name, value in given.items() if value]
    says = f"the model's pipeline refuses {' or '.join(names)}; leave it out, or choose another value"
    return JobInvalid([Violation(name, says) for name in names])
