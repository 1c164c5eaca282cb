"""What the pool's classifier refuses has OpenAI's code over HTTP, and the reason for programs over gRPC."""

from t2i_gateway.doors.errors import error_body, status_of
from t2i_gateway.errors import ContentRefused, SafetyUnchecked
from t2i_gateway.status import outcome_of


def test_refused_content_is_told_as_openai_does() -> None:
    """A client must see that trying again is no use, and which category it was."""
    error = ContentRefused("prompt", "violence", "weapons")
    told = error_body(error)["error"]
    assert (status_of(error), outcome_of(error).grpc_name) == (400, "FAILED_PRECONDITION")
    assert (told["code"], told["type"]) == ("content_policy_violation", "invalid_request_error")
    assert "violence: weapons" in told["message"]


def test_unchecked_content_may_be_tried_again() -> None:
    error = SafetyUnchecked("the prompt could not be checked")
    assert (status_of(error), outcome_of(error).grpc_name) == (503, "UNAVAILABLE")
