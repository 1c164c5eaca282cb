"""A command that fails says what to give instead."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc
from t2i_testing_kit.serving import WITHIN_S
from t2ictl.app import app


class SilentGateway(gateway_pb2_grpc.TextToImageServicer):
    """It never answers."""

    def Explain(self, request: gateway_pb2.ExplainRequest, context: Any) -> gateway_pb2.ExplainResponse:
        left = Event()
        if context.add_callback(left.set):
            left.wait()
        return gateway_pb2.ExplainResponse()


@pytest.fixture
def silent() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    gateway_pb2_grpc.add_TextToImageServicer_to_server(SilentGateway(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def told_by(command: str, *options: str) -> str:
    prompt = () if command == "plan" else ("a red circle",)
    told = CliRunner().invoke(app, [command, *prompt, *options])
    assert told.exit_code == 1
    return " ".join(told.output.split())


def test_what_is_wrong_is_told_with_its_brackets(tmp_path: Path) -> None:
    """Patterns of fields and paths of files have them; they are no colours of the terminal."""
    assert "got '[a-z].gif'" in told_by("generate", "--output", "[a-z].gif")
    missing = tmp_path / "[" / "bold].yaml"  # with a slash after the bracket it would close a colour, and raise
    assert str(missing) in told_by("plan", "--demand", "1", "--pool", str(missing)).replace(" ", "")


def test_a_web_address_is_told_the_right_form() -> None:
    """The playground's address is the one that people see first."""
    assert "give --address as HOST:PORT, without http://" in told_by("explain", "--address", "http://127.0.0.1:8080")


def test_a_call_without_an_answer_names_its_limit(silent: str) -> None:
    assert "--timeout-s gives it more" in told_by("explain", "--address", silent, "--timeout-s", "0.2")


@pytest.mark.parametrize("library", ["typer", "grpc"])
def test_interrupt_while_the_command_line_is_imported_is_quiet(library: str, tmp_path: Path) -> None:
    """That takes a second, in which people press Ctrl-C. Here a library takes for ever, and says when it began.

    The first is what all commands need, the second what this one does.

    Who was started in the background, as a test run may be, ignores Ctrl-C; people's shells do not.
    """
    heed = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    (tmp_path / f"{library}.py").write_text(f"{heed}print('began', flush=True)\nwhile True: time.sleep(0.01)")
    command = [sys.executable, "-m", "t2ictl", "generate", "a red circle"]
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, out, said) == (130, "", "")


def test_a_demand_told_twice_is_refused() -> None:
    """Else one of the two would be left out in silence."""
    assert "leave out --demand, or --rates" in told_by("plan", "--demand", "5", "--rates", "none=3")
