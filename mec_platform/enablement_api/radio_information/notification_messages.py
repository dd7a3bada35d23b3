"""What subscribers are told of the radio network (ETSI GS MEC 012 clause 6.4), made of happenings.

A notification is written once for all of its subscribers and kept so in their outboxes; which subscription it belongs to is filled
in for each on the way out (`notifications.messages`).
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from mec_platform.domain.radio_ranges import EUTRA_RSRP, EUTRA_RSRQ, EUTRA_SINR, NR_RSRP, NR_RSRQ, NR_SINR, ReportRange
from mec_platform.domain.services import JsonText
from mec_platform.enablement_api.exchange import LinkType, TimeStamp
from mec_platform.enablement_api.notifications.subscription_messages import SubscriptionLinks
from mec_platform.enablement_api.radio_information.values import (
    AssociateIdMessage,
    EcgiMessage,
    ErabQosParameters,
    NrcgiMessage,
    S1BearerInfoDetailed,
    TempUeIdMessage,
    from_associates,
    from_cell,
    from_nr_cell,
    from_quality_class,
    from_temp_ue_id,
    from_tunnel_end,
    from_unix_ns,
)
from mec_platform.radio.happenings import (
    BearerChanged,
    CarriersReconfigured,
    CellChanged,
    Happening,
    Measured,
    S1BearerChanged,
    TimingAdvanceChanged,
)
from mec_platform.radio.values import Bearer, BearerChange, HandoverStatus, Neighbour, Quality, S1Bearer, Technology

_TYPE = "notificationType"
_NOBODY = SubscriptionLinks(LinkType(""))


class RadioNotificationBase(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, omit_defaults=True
):
    """What all of them have but ExpiryNotification."""

    time_stamp: TimeStamp
    associate_id: list[AssociateIdMessage]
    links: SubscriptionLinks = msgspec.field(name="_links")


class CellChangeNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.2."""

    src_ecgi: EcgiMessage
    trg_ecgi: list[EcgiMessage]
    ho_status: HandoverStatus
    temp_ue_id: TempUeIdMessage | None = None


class RabEstNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.3."""

    ecgi: EcgiMessage
    erab_id: int
    erab_qos_parameters: ErabQosParameters | None = None
    temp_ue_id: TempUeIdMessage | None = None


class RabModNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.4."""

    ecgi: EcgiMessage
    erab_id: int
    erab_qos_parameters: ErabQosParameters | None = None


class ErabReleaseInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Which bearer is gone."""

    erab_id: int


class RabRelNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.5."""

    ecgi: EcgiMessage
    erab_release_info: ErabReleaseInfo


class EutraCellMeasurement(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A neighbour of E-UTRA; report ranges of TS 36.133."""

    ecgi: EcgiMessage
    rsrp: int | None = None
    rsrq: int | None = None
    sinr: int | None = None


class MeasRepUeNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.6; report ranges of TS 36.133. `round_trip_ms`, which is not in the standard, is the delay to the host and back
    where it was measured."""

    ecgi: EcgiMessage
    rsrp: int
    rsrq: int
    trigger: int
    sinr: int | None = None
    eutran_neighbour_cell_meas_info: list[EutraCellMeasurement] | None = None
    round_trip_ms: float | None = None


class MeasQuantityResultsNr(msgspec.Struct, frozen=True, omit_defaults=True):
    """Report ranges of TS 38.133."""

    rsrp: int | None = None
    rsrq: int | None = None
    sinr: int | None = None


class NrServingCell(msgspec.Struct, frozen=True, rename="camel"):
    """SCell: what was measured on the synchronisation signals of a serving cell."""

    meas_quantity_results_ssb_cell: MeasQuantityResultsNr


class ServCellMeasInfo(msgspec.Struct, frozen=True, rename="camel"):
    """A serving cell."""

    nrcgi: NrcgiMessage
    s_cell: NrServingCell


class NrNeighbourMeasurement(msgspec.Struct, frozen=True, rename="camel"):
    """A neighbour of NR."""

    nrcgi: NrcgiMessage
    meas_quantity_results_ssb_cell: MeasQuantityResultsNr


class NrMeasRepUeNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.12. Of neighbours only those of one technology are told, as the standard has it: NR's where there are some.
    `round_trip_ms` is as in MeasRepUeNotification."""

    trigger_nr: int
    serv_cell_meas_info: list[ServCellMeasInfo]
    nr_neigh_cell_meas_info: list[NrNeighbourMeasurement] | None = None
    eutra_neigh_cell_meas_info: list[EutraCellMeasurement] | None = None
    round_trip_ms: float | None = None


class MeasTaNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.7."""

    ecgi: EcgiMessage
    timing_advance: int


class SecondaryCell(msgspec.Struct, frozen=True):
    """A cell that came, or went."""

    ecgi: EcgiMessage


class CaReconfNotification(RadioNotificationBase, frozen=True, kw_only=True, rename="camel", tag=True):
    """Clause 6.4.8."""

    ecgi: EcgiMessage
    secondary_cell_add: list[SecondaryCell] | None = None
    secondary_cell_remove: list[SecondaryCell] | None = None


class S1UeInfo(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The UE of an S1 bearer."""

    associate_id: list[AssociateIdMessage]
    ecgi: list[EcgiMessage]
    s1_bearer_info: list[S1BearerInfoDetailed]
    temp_ue_id: TempUeIdMessage | None = None


class S1BearerNotification(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, tag=True):
    """Clause 6.4.11."""

    time_stamp: TimeStamp
    s1_event: BearerChange
    s1_ue_info: S1UeInfo
    links: SubscriptionLinks = msgspec.field(name="_links")


class ExpiryNotification(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, tag=True):
    """Clause 6.4.10: the subscription ends at the deadline unless it is replaced by one that lasts longer."""

    time_stamp: TimeStamp
    expiry_deadline: TimeStamp
    links: SubscriptionLinks = msgspec.field(name="_links")


RadioNotification = (
    CellChangeNotification
    | RabEstNotification
    | RabModNotification
    | RabRelNotification
    | MeasRepUeNotification
    | NrMeasRepUeNotification
    | MeasTaNotification
    | CaReconfNotification
    | S1BearerNotification
)


def read_radio_notification(text: JsonText) -> RadioNotification:
    """What `write_happening` wrote."""
    notification: RadioNotification = msgspec.json.decode(text, type=RadioNotification)
    return notification


def write_happening(happening: Happening) -> JsonText:
    """The notification, with the link to the subscription left open.

    Raises:
        ValueError: the standard has no words for it (see `radio.interest.topic_of`).
    """
    return JsonText(msgspec.json.encode(make_notification(happening)).decode())


def make_notification(happening: Happening) -> RadioNotification:
    """As `write_happening`, not yet written."""
    match happening:
        case CellChanged():
            return CellChangeNotification(
                **_shared(happening),
                src_ecgi=from_cell(happening.cell),
                trg_ecgi=[from_cell(each) for each in happening.targets],
                ho_status=happening.status,
                temp_ue_id=from_temp_ue_id(happening.ue.temp_ue_id),
            )
        case BearerChanged():
            return _of_bearer(happening, happening.bearer)
        case S1BearerChanged():
            return _of_s1_bearer(happening)
        case Measured():
            return _of_measurement(happening)
        case TimingAdvanceChanged():
            return MeasTaNotification(
                **_shared(happening), ecgi=from_cell(happening.cell), timing_advance=happening.timing_advance
            )
        case CarriersReconfigured():
            return CaReconfNotification(
                **_shared(happening),
                ecgi=from_cell(happening.cell),
                secondary_cell_add=[SecondaryCell(from_cell(each)) for each in happening.added] or None,
                secondary_cell_remove=[SecondaryCell(from_cell(each)) for each in happening.removed] or None,
            )
        case _:
            assert_never(happening)


def _shared(happening: Happening) -> dict[str, Any]:
    return {
        "time_stamp": from_unix_ns(happening.at_unix_ns),
        "associate_id": from_associates(happening.ue.associates),
        "links": _NOBODY,
    }


def _of_bearer(happening: BearerChanged, bearer: Bearer) -> RadioNotification:
    shared, ecgi = _shared(happening), from_cell(happening.cell)
    quality = from_quality_class(bearer.qci, bearer.rates)
    match happening.change:
        case BearerChange.ESTABLISHED:
            return RabEstNotification(
                **shared,
                ecgi=ecgi,
                erab_id=bearer.erab_id,
                erab_qos_parameters=quality,
                temp_ue_id=from_temp_ue_id(happening.ue.temp_ue_id),
            )
        case BearerChange.MODIFIED:
            return RabModNotification(**shared, ecgi=ecgi, erab_id=bearer.erab_id, erab_qos_parameters=quality)
        case BearerChange.RELEASED:
            return RabRelNotification(**shared, ecgi=ecgi, erab_release_info=ErabReleaseInfo(bearer.erab_id))


def _of_s1_bearer(happening: S1BearerChanged) -> S1BearerNotification:
    return S1BearerNotification(
        time_stamp=from_unix_ns(happening.at_unix_ns),
        s1_event=happening.change,
        s1_ue_info=S1UeInfo(
            from_associates(happening.ue.associates),
            [from_cell(happening.cell)],
            [from_s1_bearer(happening.bearer)],
            from_temp_ue_id(happening.ue.temp_ue_id),
        ),
        links=_NOBODY,
    )


def from_s1_bearer(bearer: S1Bearer) -> S1BearerInfoDetailed:
    """The bearer with both ends of its tunnel."""
    return S1BearerInfoDetailed(bearer.erab_id, from_tunnel_end(bearer.enb), from_tunnel_end(bearer.sgw))


def _of_measurement(happening: Measured) -> RadioNotification:
    measurement, cell = happening.measurement, happening.cell
    round_trip_ms = None if measurement.round_trip_s is None else round(measurement.round_trip_s * 1e3, 3)
    nr = [each for each in measurement.neighbours if each.cell.technology is Technology.NR]
    eutra = [_of_eutra_neighbour(each) for each in measurement.neighbours if each not in nr] or None
    if cell.technology is Technology.NR:
        serving = ServCellMeasInfo(from_nr_cell(cell), NrServingCell(_of_nr_quality(measurement.quality)))
        return NrMeasRepUeNotification(
            **_shared(happening),
            trigger_nr=measurement.trigger,
            serv_cell_meas_info=[serving],
            nr_neigh_cell_meas_info=[
                NrNeighbourMeasurement(from_nr_cell(each.cell), _of_nr_quality(each.quality)) for each in nr
            ]
            or None,
            eutra_neigh_cell_meas_info=None if nr else eutra,
            round_trip_ms=round_trip_ms,
        )
    rsrp, rsrq = measurement.quality.rsrp_dbm, measurement.quality.rsrq_db
    if rsrp is None or rsrq is None:
        raise ValueError("a measurement in E-UTRA is told with its power and quality only")
    return MeasRepUeNotification(
        **_shared(happening),
        ecgi=from_cell(cell),
        rsrp=EUTRA_RSRP.report(rsrp),
        rsrq=EUTRA_RSRQ.report(rsrq),
        sinr=_report(EUTRA_SINR, measurement.quality.sinr_db),
        trigger=measurement.trigger,
        eutran_neighbour_cell_meas_info=eutra,
        round_trip_ms=round_trip_ms,
    )


def _of_nr_quality(quality: Quality) -> MeasQuantityResultsNr:
    return MeasQuantityResultsNr(
        _report(NR_RSRP, quality.rsrp_dbm), _report(NR_RSRQ, quality.rsrq_db), _report(NR_SINR, quality.sinr_db)
    )


def _of_eutra_neighbour(neighbour: Neighbour) -> EutraCellMeasurement:
    quality = neighbour.quality
    return EutraCellMeasurement(
        from_cell(neighbour.cell),
        _report(EUTRA_RSRP, quality.rsrp_dbm),
        _report(EUTRA_RSRQ, quality.rsrq_db),
        _report(EUTRA_SINR, quality.sinr_db),
    )


def _report(reported: ReportRange, value: float | None) -> int | None:
    return None if value is None else reported.report(value)
