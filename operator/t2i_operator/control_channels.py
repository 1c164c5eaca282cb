"""Channels to the control ports of pods: one for each address, closed when nobody is there any more."""

from collections.abc import Iterable

import grpc

from t2i_api.names import HEALTH_PORT
from t2i_operator.manifests.child import Manifest
from t2i_runtime.grpc_options import NO_PROXY

CONTROL_PORT_NAME = "control"


class ControlChannels:
    """Close them."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    def to(self, address: str) -> grpc.aio.Channel:
        """The one to this address."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=NO_PROXY)
        return channel

    async def keep(self, pods: Iterable[Manifest]) -> None:
        """Close those to pods that are not among these."""
        addresses = {address for pod in pods if (address := control_address(pod))}
        for address in self._channels.keys() - addresses:
            await self._channels.pop(address).close()

    async def close(self) -> None:
        """Close every one."""
        await self.keep(())


def is_running(pod: Manifest) -> bool:
    """True unless it is on its way out."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return "deletionTimestamp" not in pod["metadata"] and not ended


def control_address(pod: Manifest) -> str | None:
    """Where a pod answers the operator; None before it has an address."""
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
