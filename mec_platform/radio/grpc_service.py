"""gRPC `RadioAccess`: the RAN adapter for a real RAN or its simulator, which call in and report."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from mec_platform.radio.network import RadioSink
from mec_platform.radio.radio_state import ReportRefused
from mec_platform.radio.reading import InvalidReport, read_report
from mec_platform.rpc.endpoints import Context
from mec_platform.rpc.v1 import radio_pb2, radio_pb2_grpc

logger = logging.getLogger(__name__)

MOST_REPORTS = 200
"""In one message: they are taken without a pause, for some milliseconds."""

LONGEST_SOURCE = 64


class RadioAccessService(radio_pb2_grpc.RadioAccessServicer):
    """The servicer; reports of all calls go to one sink."""

    def __init__(self, sink: RadioSink) -> None:
        self._sink = sink

    async def ReportRadio(
        self, request_iterator: AsyncIterator[radio_pb2.RadioReports], context: Context
    ) -> AsyncIterator[radio_pb2.RadioReportsTaken]:
        """Message by message: the next one is read when this one was taken, which is what holds back a RAN that hurries."""
        taken = 0
        async for message in request_iterator:
            problem = _problem(message)
            if problem is not None:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
            for number, each in enumerate(message.reports):
                try:
                    self._sink.take(read_report(each), message.source)
                except (InvalidReport, ReportRefused) as error:
                    logger.info("a report of RAN %r is refused: %s", message.source, error)
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"reports[{number}]: {error}")
                taken += 1
            yield radio_pb2.RadioReportsTaken(taken=taken)


def _problem(message: radio_pb2.RadioReports) -> str | None:
    if not 1 <= len(message.source) <= LONGEST_SOURCE or not message.source.isprintable():
        return f"source: 1 to {LONGEST_SOURCE} printable characters are needed"
    if len(message.reports) > MOST_REPORTS:
        return f"reports: {len(message.reports)} in one message, at most {MOST_REPORTS} are taken"
    return None
