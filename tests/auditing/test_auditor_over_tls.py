"""The auditor hears gateways of its own pool and nobody else, as workers do."""

from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from t2i_auditor.book import AuditBook
from t2i_auditor.judging import PairJudge
from t2i_auditor.metrics import AuditorMetrics
from t2i_auditor.service import AuditorService
from t2i_gateway.audits.auditor_connection import AuditorConnection
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc
from t2i_runtime.tls.certificates import Shown, follow_certificates, read_certificates
from t2i_runtime.tls.guarded_port import open_guarded_port
from t2i_runtime.tls.transport import channel_opener
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.secured_pool import GATEWAY, WORKER
from t2i_testing_kit.serving import STEPS, make_profile

INSIDE, STRANGERS = TestAuthority("inside"), TestAuthority("strangers")


@pytest.mark.parametrize(
    ("authority", "name", "code"),
    [
        (INSIDE, GATEWAY, grpc.StatusCode.INVALID_ARGUMENT),  # it is heard: an empty pair is none
        (INSIDE, WORKER, grpc.StatusCode.PERMISSION_DENIED),
        (STRANGERS, GATEWAY, grpc.StatusCode.UNAVAILABLE),
    ],
    ids=["its gateway", "another member of the pool", "a stranger"],
)
async def test_only_gateways_of_the_pool_are_heard(
    tmp_path: Path, authority: TestAuthority, name: str, code: grpc.StatusCode
) -> None:
    quiet = Shown(lambda _: None, lambda _: None)
    own = mount(tmp_path / "auditor", INSIDE.issue(WORKER))
    port = open_guarded_port(own, GATEWAY, quiet)
    metrics, profile = AuditorMetrics(CollectorRegistry(), STEPS), make_profile((0.001,))
    judge = PairJudge("scenes", tmp_path, "", profile=profile, metrics=metrics)
    service = AuditorService(judge, AuditBook(profile, metrics, recalibrates=False), metrics)
    server = grpc.aio.server(interceptors=port.interceptors)
    auditor_pb2_grpc.add_AuditorServicer_to_server(service, server)
    number = port.bind(server, "127.0.0.1:0")
    await server.start()
    files = {**authority.issue(name), "ca.crt": INSIDE.pem}
    shown = follow_certificates("client", mount(tmp_path / "gateway", files), read_certificates, quiet)
    connection = AuditorConnection(f"127.0.0.1:{number}", channel_opener(shown, WORKER, ()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await connection.judge(auditor_pb2.JudgeRequest())
    assert caught.value.code() is code
    await connection.close()
    await server.stop(None)
