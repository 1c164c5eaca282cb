"""The gateway's way to the pool's auditor: pairs out, corrections in. Certificates and wiring are those of workers."""

import asyncio
from collections.abc import AsyncGenerator

import grpc

from t2i_gateway.workers.connection import OpenChannel
from t2i_protos.v1 import auditor_pb2, auditor_pb2_grpc

JUDGE_LIMIT_S = 60.0  # more than auditors give their judge
ASK_LIMIT_S = 5.0
FIRST_NEWS_LIMIT_S = 15.0
SPARE_S = 2.0  # beyond what the auditor promised
OLDER_LIMIT_S = JUDGE_LIMIT_S


class AuditorConnection:
    """Used from one event loop."""

    def __init__(self, address: str, open_channel: OpenChannel) -> None:
        self.address = address
        self._open_channel = open_channel
        self._closing: set[asyncio.Task[None]] = set()
        self._channel = open_channel(address)

    def renew(self) -> None:
        """Reach it over a new channel: certificates changed."""
        closing = asyncio.create_task(self._channel.close(OLDER_LIMIT_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._channel = self._open_channel(self.address)

    async def judge(self, request: auditor_pb2.JudgeRequest) -> auditor_pb2.JudgeResponse:
        """Raises:
        grpc.aio.AioRpcError: it did not judge, or not in time.
        """
        stub = auditor_pb2_grpc.AuditorStub(self._channel)
        return await stub.Judge(request, timeout=JUDGE_LIMIT_S)

    async def can_judge(self, prompt: str) -> bool:
        """Whether an exact image for this prompt would be judged. An older auditor does not say: True.

        Raises:
            grpc.aio.AioRpcError: it does not answer.
        """
        stub = auditor_pb2_grpc.AuditorStub(self._channel)
        try:
            answer = await stub.CanJudge(auditor_pb2.CanJudgeRequest(prompt=prompt), timeout=ASK_LIMIT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return True
            raise
        return bool(answer.can)

    async def corrections(self) -> AsyncGenerator[auditor_pb2.Corrections, None]:
        """Those in force, and every change.

        Raises:
            grpc.aio.AioRpcError: it cannot be reached.
            TimeoutError: it is silent for longer than it promised.
        """
        call = auditor_pb2_grpc.AuditorStub(self._channel).WatchCorrections(auditor_pb2.WatchCorrectionsRequest())
        limit_s = FIRST_NEWS_LIMIT_S
        try:
            while True:
                async with asyncio.timeout(limit_s):
                    told = await call.read()
                if not isinstance(told, auditor_pb2.Corrections):
                    return
                limit_s = told.next_within_ms / 1e3 + SPARE_S
                yield told
        finally:
            call.cancel()

    async def close(self) -> None:
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()
