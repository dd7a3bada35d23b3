"""Between the messages of `CapacityProfiler` and the values of monitoring."""

from __future__ import annotations

from mec_platform.control_plane.monitoring.events import LinkReading, MemberReported
from mec_platform.control_plane.monitoring.radio_forecast import UeState
from mec_platform.domain.cost_profile import CostProfile
from mec_platform.domain.hardware import HardwareTarget
from mec_platform.domain.model_shape import ModelShape
from mec_platform.rpc.convert import hardware_from_message, profile_from_message, shape_from_message
from mec_platform.rpc.v1 import control_plane_pb2, types_pb2

MAX_NAME = 128
MAX_LINKS = 2048
"""Far more than the peers whose links a member measures."""

MAX_REPORT_BYTES = 512 << 10
LARGEST_NUMBER = 1e15
"""Beyond any time, rate or size of a member; sums of such numbers stay finite."""

_NUMBERS = (
    "block_time_us",
    "head_time_us",
    "prefill_block_time_us_per_row",
    "tokens_per_s",
    "profile_ratio",
    "weights_bytes_per_s",
    "token_ms",
    "first_token_ms",
)


def problem_of(report: control_plane_pb2.MemberReport) -> str | None:
    """Why a report cannot be taken for one, None where it can."""
    if not report.name or len(report.name) > MAX_NAME:
        return f"name: 1 to {MAX_NAME} characters are needed"
    if report.role not in (control_plane_pb2.MEMBER_ROLE_NODE, control_plane_pb2.MEMBER_ROLE_GATEWAY):
        return "role: MEMBER_ROLE_NODE or MEMBER_ROLE_GATEWAY is needed"
    if not report.address or not report.incarnation:
        return "address and incarnation are needed"
    if report.ByteSize() > MAX_REPORT_BYTES or len(report.links) > MAX_LINKS:
        return f"a report has {MAX_LINKS} links and {MAX_REPORT_BYTES} bytes at most"
    numbers = [getattr(report, name) for name in _NUMBERS]
    numbers += [number for link in report.links for number in (link.bytes_per_s, link.round_trip_ms, abs(link.age_s))]
    if not all(0 <= number <= LARGEST_NUMBER for number in (*numbers, abs(report.load.busy_share))):  # NaN is neither
        return "times and rates must be numbers that are not negative"
    return None


class ReportReader:
    """Reads the reports of one stream: what a report repeats of the last one becomes the same objects again."""

    def __init__(self) -> None:
        self._last = control_plane_pb2.MemberReport()
        self._hardware: HardwareTarget = hardware_from_message(self._last.hardware)
        self._model: ModelShape | None = None
        self._profile: CostProfile | None = None
        self._local_blocks: frozenset[int] | None = None

    def read(self, report: control_plane_pb2.MemberReport, at_s: float) -> MemberReported:
        """The report as an event. Raises ValueError where it carries a cost profile that is none."""
        self._read_facts(report)
        return MemberReported(
            at_s=at_s,
            role="node" if report.role == control_plane_pb2.MEMBER_ROLE_NODE else "gateway",
            name=report.name,
            address=report.address,
            incarnation=report.incarnation,
            trusted=report.trusted,
            hardware=self._hardware,
            model=self._model,
            memory_bytes=report.memory_bytes,
            block_time_s=report.block_time_us / 1e6,
            head_time_s=report.head_time_us / 1e6,
            prefill_block_time_s_per_row=report.prefill_block_time_us_per_row / 1e6,
            sessions=report.sessions,
            tokens_per_s=report.tokens_per_s,
            context_positions=report.context_positions,
            links=tuple(
                LinkReading(link.peer, link.bytes_per_s, link.round_trip_ms / 1e3, max(link.age_s, 0.0))
                for link in report.links
            ),
            leaving=report.leaving,
            profile=self._profile,
            profile_ratio=report.profile_ratio,
            site=report.site,
            machine=report.machine,
            group=report.group,
            ue=report.ue,
            local_blocks=self._local_blocks,
            weights_bytes_per_s=report.weights_bytes_per_s,
            busy_share=min(max(report.load.busy_share, 0.0), 1.0),
            queued=report.queued,
            token_s=report.token_ms / 1e3,
            first_token_s=report.first_token_ms / 1e3,
            committed_epoch=report.committed_epoch,
            stage_epochs=tuple(report.stage_epochs),
        )

    def _read_facts(self, report: control_plane_pb2.MemberReport) -> None:
        last, self._last = self._last, report
        if report.hardware != last.hardware:
            self._hardware = hardware_from_message(report.hardware)
        if not report.HasField("model"):
            self._model = None
        elif self._model is None or report.model != last.model:
            self._model = shape_from_message(report.model)
        if not report.HasField("profile"):
            self._profile = None
        elif self._profile is None or report.profile != last.profile:
            self._profile = profile_from_message(report.profile)
        if not report.HasField("local_blocks"):
            self._local_blocks = None
        elif self._local_blocks is None or report.local_blocks != last.local_blocks:
            self._local_blocks = frozenset(report.local_blocks.blocks)


def radio_to_message(name: str, ue: UeState, now_s: float) -> control_plane_pb2.RadioDevice:
    """A UE with its forecast and how right forecasts of it have been."""
    signal, forecast = ue.signals[-1], ue.forecast
    message = control_plane_pb2.RadioDevice(
        ue=name,
        cell=ue.cell,
        rsrp_dbm=signal.rsrp_dbm,
        sinr_db=signal.sinr_db,
        age_s=max(0.0, now_s - signal.at_s),
        forecast_error_ms=ue.record.told * 1e3,
        persistence_error_ms=ue.record.persistence * 1e3,
        forecasts=ue.record.count,
    )
    if forecast is not None:
        message.forecast.CopyFrom(
            types_pb2.LinkForecast(
                after_s=forecast.after_s,
                round_trip_ms=forecast.round_trip_s * 1e3,
                confidence=forecast.confidence,
                reason=forecast.reason,
                breaks_in_s=forecast.breaks_in_s,
            )
        )
    return message
