"""`t2ictl explain` can ask about whatever `t2ictl generate` can."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer.main
from typer.testing import CliRunner

from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, level_pb2
from t2ictl.app import app

PNG = b"\x89PNG\r\n\x1a\n rest"
NO_QUESTION = {"output", "request_id", "previews"}  # where the image goes, whether it is drawn twice, or shown


class ListeningGateway(gateway_pb2_grpc.TextToImageServicer):
    """It hears what is asked and draws nothing."""

    def __init__(self) -> None:
        self.heard: list[gateway_pb2.GenerateRequest] = []
        self.explained = gateway_pb2.ExplainResponse()

    def Generate(self, request: gateway_pb2.GenerateRequest, context: Any) -> Iterator[gateway_pb2.GenerateEvent]:
        self.heard.append(request)
        context.abort(grpc.StatusCode.UNAVAILABLE, "")
        yield gateway_pb2.GenerateEvent()

    def Explain(self, request: gateway_pb2.ExplainRequest, context: Any) -> gateway_pb2.ExplainResponse:
        self.heard.append(request.request)
        return self.explained


@pytest.fixture
def gateway() -> Iterator[ListeningGateway]:
    server, gateway = grpc.server(ThreadPoolExecutor(1)), ListeningGateway()
    gateway_pb2_grpc.add_TextToImageServicer_to_server(gateway, server)
    gateway.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield gateway
    server.stop(None).wait()


def options_of(command: str) -> set[str]:
    return {option.name for option in typer.main.get_command(app).commands[command].params}


def test_both_commands_have_the_same_options() -> None:
    assert options_of("generate") - NO_QUESTION == options_of("explain")


@pytest.mark.parametrize("picture", ["mask", "reference-image"])  # they exclude each other
def test_both_commands_ask_the_same(gateway: ListeningGateway, tmp_path: Path, picture: str) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(PNG)
    given = {
        "negative-prompt": "blur", "seed": "7", "min-quality-percent": "90", "max-skipped-steps": "3", "steps": "12",
        "guidance-scale": "30", "width": "64", "height": "48", "num-images": "3", "sampler": "euler",
        "argument": "clip_skip=2", "adapter": "pixel:0.5", "control": f"canny={image}", "init-image": str(image),
        "strength": "0.5", "model": "turbo", "ip-image": f"face={image}:0.5", picture: str(image),
    }  # fmt: skip
    options = [text for name, value in given.items() for text in (f"--{name}", value)]
    for command in ("generate", "explain"):
        told = CliRunner().invoke(app, [command, "a red circle", *options, "--address", f"127.0.0.1:{gateway.port}"])
        assert len(gateway.heard) == 1 + (command == "explain"), told.output
    drawn, explained = gateway.heard
    drawn.ClearField("output_format")  # the name of the output file says it
    assert explained == drawn
    unset = {field.name for field in explained.DESCRIPTOR.fields} - {field.name for field, _ in explained.ListFields()}
    assert unset == {"output_format", "preview_every_steps", "exact", "request_id", "prompt_in_file"}


def test_reasons_are_told_whole_in_a_narrow_terminal(gateway: ListeningGateway) -> None:
    """A reason that is cut cannot be looked up in the pages."""
    level = level_pb2.Level(skipped_steps=3, num_inference_steps=12)
    why = "20.3% ± 3.6% in 15 prompts of similarity -1.00 to 0.50; twins lost 16.6% ± 16.8% in 3 pairs"
    entry = gateway_pb2.LevelOutlook(level=level, estimated_ms=301, reason="BelowQualityFloor", explanation=why)
    gateway.explained = gateway_pb2.ExplainResponse(decision=gateway_pb2.Decision(served=level), levels=[entry])
    told = CliRunner().invoke(app, ["explain", "a red circle", "--address", f"127.0.0.1:{gateway.port}"])
    rows = [line.split("│") for line in told.output.splitlines() if "│" in line]
    assert "".join(row[4].strip() for row in rows) == "no:BelowQualityFloor"


def test_time_without_any_worker_is_told_in_words(gateway: ListeningGateway) -> None:
    """Infinitely many milliseconds are no time: nobody would draw it."""
    level = level_pb2.Level(num_inference_steps=12)
    entry = gateway_pb2.LevelOutlook(level=level, estimated_ms=float("inf"), eligible=True)
    gateway.explained = gateway_pb2.ExplainResponse(decision=gateway_pb2.Decision(served=level), levels=[entry])
    told = CliRunner().invoke(app, ["explain", "a red circle", "--address", f"127.0.0.1:{gateway.port}"])
    assert "no worker" in told.output
    assert "inf" not in told.output
