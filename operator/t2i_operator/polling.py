"""Polling: what the gateways of a pool say about demand, each asked with a deadline; the silent are left out."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import grpc

from t2i_api.names import HEALTH_PORT
from t2i_operator.deciding.observed import DemandReport, MeasuredProfile, PodSeen
from t2i_operator.deciding.pods import read_pod
from t2i_operator.manifests import Manifest
from t2i_operator.metrics import OperatorMetrics
from t2i_protos.v1 import control_pb2, control_pb2_grpc
from t2i_runtime.grpc_options import NO_PROXY

POLL_LIMIT_S = 1.0
CONTROL_PORT_NAME = "control"


class DemandPoller:
    """Keeps one channel per gateway; close it."""

    def __init__(self, metrics: OperatorMetrics) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._metrics = metrics

    async def poll(self, gateways: Sequence[Manifest]) -> tuple[DemandReport, ...]:
        """Ask the running gateways among these pods. One that is not ready may know why: no worker serves."""
        asked = [(read_pod(pod), control_address(pod)) for pod in gateways if _runs(pod)]
        answers = await asyncio.gather(*(self._ask(pod, address) for pod, address in asked if address is not None))
        return tuple(answer for answer in answers if answer is not None)

    async def _ask(self, pod: PodSeen, address: str) -> DemandReport | None:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=NO_PROXY)
        stub = control_pb2_grpc.ControlStub(channel)
        try:
            answer = await stub.GetDemand(control_pb2.GetDemandRequest(), timeout=POLL_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            self._metrics.polls.labels(error.code().name).inc()
            return None
        self._metrics.polls.labels("OK").inc()
        return replace(to_report(pod.name, answer), ready=pod.ready)

    async def keep_only(self, addresses: set[str]) -> None:
        """Close channels to gateways that have gone."""
        for address in self._channels.keys() - addresses:
            await self._channels.pop(address).close()

    async def close(self) -> None:
        """Close every channel."""
        await self.keep_only(set())


def _runs(pod: Manifest) -> bool:
    """True unless it is on its way out."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return "deletionTimestamp" not in pod["metadata"] and not ended


def control_address(pod: Manifest) -> str | None:
    """Where a gateway pod answers the operator; None before it has an address."""
    address = pod.get("status", {}).get("podIP")
    ports = [
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if port.get("name") == CONTROL_PORT_NAME
    ]
    if not address:
        return None
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{ports[0] if ports else HEALTH_PORT}"


def to_report(name: str, answer: control_pb2.GetDemandResponse) -> DemandReport:
    """The wire's milliseconds become seconds."""
    return DemandReport(
        gateway=name,
        rates_rps={one.prompt_class: one.rate_rps for one in answer.demand if one.rate_rps > 0},
        earlier_rps=answer.earlier_rps,
        revision=answer.plan_revision,
        queued=answer.queued,
        in_flight=answer.in_flight,
        embedder_trouble=answer.embedder_trouble,
        store_trouble=answer.store_trouble,
        left_out={one.worker: one.reason for one in answer.left_out},
        measured={
            one.group: MeasuredProfile(tuple(value / 1e3 for value in one.step_ms), one.fixed_ms / 1e3)
            for one in answer.measurements
            if one.step_ms
        },
    )
