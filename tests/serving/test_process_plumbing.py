"""What every server process shares: drains end at their limit, announcements are whole, errors carry their details."""

import asyncio
import gc
import json
import os
import signal
import sys
import weakref
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from t2i_gateway.errors import RequestInvalid, RequestRefused
from t2i_gateway.status import to_status as to_gateway_status
from t2i_policy.request.admission import Refused, RefusedReason
from t2i_runtime.errors import Violation
from t2i_runtime.process import announce, bound_address, drain, spare_collector
from t2i_testing_kit.serving import WITHIN_S, PoolFiles, until
from t2i_worker.errors import EngineLost, JobFailed, JobInvalid, ReadyReason, WorkerBusy
from t2i_worker.status import to_status as to_worker_status

VIOLATION = Violation("prompt", "must not be empty")


def details(status: grpc.Status, *kinds: Message) -> list[Message]:
    """The details of a status, as messages of these kinds."""
    found = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
    assert len(found.details) == len(kinds)
    for packed, kind in zip(found.details, kinds, strict=True):
        assert packed.Unpack(kind)
    return list(kinds)


async def test_drain_ends_at_its_limit_or_with_what_runs() -> None:
    """What does not end is left; what ends is not waited for any longer."""
    running = asyncio.Event()
    await drain(running.wait(), 0.0)
    running.set()
    await drain(running.wait(), 3600.0)


def test_garbage_collector_leaves_alone_what_the_start_made_and_nothing_else() -> None:
    class Knot:
        def __init__(self) -> None:
            self.myself = self

    made, thresholds = Knot(), gc.get_threshold()
    try:
        spare_collector()
        assert not any(one is made for one in gc.get_objects())
        assert gc.get_threshold()[0] > thresholds[0]
        left = weakref.ref(Knot())
        gc.collect()
        assert left() is None
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def test_announcement_names_the_bound_ports_and_is_there_whole(tmp_path: Path) -> None:
    announce(None, "nobody", "asks")
    announce(tmp_path / "me.json", "of an", "earlier process")
    with (tmp_path / "me.json").open() as reader:
        announce(tmp_path / "me.json", bound_address("[::]:0", 4711), bound_address("127.0.0.1:0", 9), "127.0.0.1:8")
        assert json.load(reader)["address"] == "of an"  # who began to read goes on with what it began
    assert [path.name for path in tmp_path.iterdir()] == ["me.json"]
    said = json.loads((tmp_path / "me.json").read_text())
    doors = {"address": "[::]:4711", "http_address": "127.0.0.1:8", "control_address": ""}
    assert said == {**doors, "metrics_address": "127.0.0.1:9", "pid": os.getpid()}


def test_refusal_says_why_and_when_to_come_back() -> None:
    refused = Refused(RefusedReason.OVERLOADED, "too much", retry_after_s=1.25)
    status = to_gateway_status(RequestRefused(refused))
    info, retry = details(status, error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo())
    assert status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (info.reason, info.domain) == ("Overloaded", "t2iserving.dev")
    assert retry.retry_delay.ToMilliseconds() == 1250


def test_both_name_every_field_that_is_wrong() -> None:
    for status in (to_gateway_status(RequestInvalid([VIOLATION])), to_worker_status(JobInvalid([VIOLATION]))):
        (request,) = details(status, error_details_pb2.BadRequest())
        assert status.code.value[0] == code_pb2.INVALID_ARGUMENT
        assert status.details == "prompt: must not be empty"
        assert [(one.field, one.description) for one in request.field_violations] == [VIOLATION]


def test_busy_worker_says_when_to_come_back_and_lost_one_to_go_elsewhere() -> None:
    (retry,) = details(to_worker_status(WorkerBusy("full")), error_details_pb2.RetryInfo())
    assert retry.retry_delay.ToMilliseconds() == 200
    lost = EngineLost("gone", ReadyReason.DEVICE_LOST)
    assert to_worker_status(lost).code is grpc.StatusCode.UNAVAILABLE
    assert to_worker_status(JobFailed("no")).code is grpc.StatusCode.INTERNAL


AS_MAIN = """
import atexit, runpy, sys
atexit.register(print, "the interpreter ends")
sys.argv = ["t2i-worker", *sys.argv[1:]]
runpy.run_module("t2i_worker", run_name="__main__", alter_sys=True)
"""


@pytest.mark.process
async def test_worker_that_drained_leaves_out_the_interpreters_end(tmp_path: Path) -> None:
    """That looks at all objects of torch once more: seconds of CPU in which a successor waits for the device."""
    options, announced = PoolFiles().write(tmp_path), tmp_path / "one.json"
    files = ["--pool", str(options.pool_file), "--profile", str(options.profile), "--announce", str(announced)]
    command = [sys.executable, "-c", AS_MAIN, *files, "--group", "sim", "--name", "one"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)

    async def is_serving() -> bool:
        return announced.exists()

    await until("it serves", is_serving, bool)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(WITHIN_S):
        out, log = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "")
    assert log.decode().rstrip().endswith("draining")  # its last line is not lost
