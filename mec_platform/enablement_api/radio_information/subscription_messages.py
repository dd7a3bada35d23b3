"""The nine subscriptions of ETSI GS MEC 012 (clauses 6.3.2 to 6.3.9 and 6.3.11) as JSON has them, and their filter criteria.

A subscription is kept as its client wrote it, and read again where somebody asks for it or something happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, assert_never

import msgspec

from mec_platform.domain.subscriptions import Topic
from mec_platform.enablement_api.exchange import TimeStamp
from mec_platform.enablement_api.notifications.subscription_messages import SubscriptionAnswer, SubscriptionRequest
from mec_platform.enablement_api.radio_information.values import (
    AssociateIdMessage,
    DeadlineMessage,
    EcgiMessage,
    NrcgiMessage,
    to_associate,
    to_cell_name,
)
from mec_platform.radio.interest import RadioInterest
from mec_platform.radio.values import LAST_ERAB_ID, BearerChange, HandoverStatus

_TYPE = "subscriptionType"
_ERAB_ID = Annotated[int, msgspec.Meta(ge=0, le=LAST_ERAB_ID)]


class Trigger(IntEnum):
    """Clause 6.6.2: what made a UE of E-UTRA report (TS 36.331)."""

    NOT_AVAILABLE = 0
    PERIODICAL_REPORT_STRONGEST_CELLS = 1
    PERIODICAL_REPORT_STRONGEST_CELLS_FOR_SON = 2
    PERIODICAL_REPORT_CGI = 3
    INTRA_PERIODICAL_REPORT_STRONGEST_CELLS = 4
    INTRA_PERIODICAL_REPORT_CGI = 5
    EVENT_A1 = 10
    EVENT_A2 = 11
    EVENT_A3 = 12
    EVENT_A4 = 13
    EVENT_A5 = 14
    EVENT_A6 = 15
    EVENT_B1 = 20
    EVENT_B2 = 21
    EVENT_C1 = 30
    EVENT_C2 = 31
    EVENT_W1 = 40
    EVENT_W2 = 41
    EVENT_W3 = 42
    EVENT_V1 = 50
    EVENT_V2 = 51
    EVENT_H1 = 60
    EVENT_H2 = 61


class TriggerNr(IntEnum):
    """Clause 6.6.3: what made a UE of NR report (TS 38.331)."""

    NOT_AVAILABLE = 0
    NR_PERIODICAL = 1
    NR_CGI = 2
    EVENT_A1 = 10
    EVENT_A2 = 11
    EVENT_A3 = 12
    EVENT_A4 = 13
    EVENT_A5 = 14
    EVENT_A6 = 15
    INTER_RAT_PERIODICAL = 20
    INTER_RAT_CGI = 21
    EVENT_B1 = 30
    EVENT_B2 = 31


class _Criteria(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Attributes AND, values of a list OR. An absent attribute and an empty list match everything."""

    app_instance_id: str | None = None


class FilterCriteriaAssoc(_Criteria, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clauses 6.3.7 and 6.3.8. A subscription that names an application instance of its client ends with that one."""

    associate_id: list[AssociateIdMessage] | None = None
    ecgi: list[EcgiMessage] | None = None


class FilterCriteriaAssocHo(FilterCriteriaAssoc, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clause 6.3.2. Without a status, COMPLETED is meant, and answered."""

    ho_status: list[HandoverStatus] | None = None


class FilterCriteriaAssocTri(FilterCriteriaAssoc, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clause 6.3.6."""

    trigger: list[Trigger] | None = None


class FilterCriteriaNrMrs(_Criteria, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clause 6.3.11."""

    associate_id: list[AssociateIdMessage] | None = None
    nrcgi: list[NrcgiMessage] | None = None
    trigger_nr: list[TriggerNr] | None = None


class FilterCriteriaQci(_Criteria, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clause 6.3.3."""

    ecgi: list[EcgiMessage] | None = None
    qci: int


class FilterCriteriaQciErab(FilterCriteriaQci, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clauses 6.3.4 and 6.3.5."""

    erab_id: _ERAB_ID


class S1BearerSubscriptionCriteria(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Clause 6.3.9."""

    associate_id: list[AssociateIdMessage] | None = None
    ecgi: list[EcgiMessage] | None = None
    erab_id: list[_ERAB_ID] | None = None


class _Request(SubscriptionRequest, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE):
    """What each of the nine has as it is posted; `expiry_deadline` must be yet to come."""

    expiry_deadline: DeadlineMessage | None = None


class _Answer(SubscriptionAnswer, frozen=True, kw_only=True, rename="camel", tag_field=_TYPE, omit_defaults=True):
    """What each of the nine has as it is answered."""

    expiry_deadline: TimeStamp | None = None


class CellChangeSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="CellChangeSubscription"):
    """Clause 6.3.2, as it is posted."""

    filter_criteria_assoc_ho: FilterCriteriaAssocHo


class CellChangeSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.2, as it is answered."""

    filter_criteria_assoc_ho: FilterCriteriaAssocHo


class RabEstSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="RabEstSubscription"):
    """Clause 6.3.3, as it is posted."""

    filter_criteria_qci: FilterCriteriaQci


class RabEstSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.3, as it is answered."""

    filter_criteria_qci: FilterCriteriaQci


class RabModSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="RabModSubscription"):
    """Clause 6.3.4, as it is posted."""

    filter_criteria_qci: FilterCriteriaQciErab


class RabModSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.4, as it is answered."""

    filter_criteria_qci: FilterCriteriaQciErab


class RabRelSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="RabRelSubscription"):
    """Clause 6.3.5, as it is posted."""

    filter_criteria_qci: FilterCriteriaQciErab


class RabRelSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.5, as it is answered."""

    filter_criteria_qci: FilterCriteriaQciErab


class MeasRepUeSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="MeasRepUeSubscription"):
    """Clause 6.3.6, as it is posted."""

    filter_criteria_assoc_tri: FilterCriteriaAssocTri


class MeasRepUeSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.6, as it is answered."""

    filter_criteria_assoc_tri: FilterCriteriaAssocTri


class MeasTaSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="MeasTaSubscription"):
    """Clause 6.3.7, as it is posted."""

    filter_criteria_assoc: FilterCriteriaAssoc


class MeasTaSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.7, as it is answered."""

    filter_criteria_assoc: FilterCriteriaAssoc


class CaReconfSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="CaReconfSubscription"):
    """Clause 6.3.8, as it is posted."""

    filter_criteria_assoc: FilterCriteriaAssoc


class CaReconfSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.8, as it is answered."""

    filter_criteria_assoc: FilterCriteriaAssoc


class S1BearerSubscriptionRequest(_Request, frozen=True, kw_only=True, rename="camel", tag="S1BearerSubscription"):
    """Clause 6.3.9, as it is posted."""

    event_type: Annotated[list[BearerChange], msgspec.Meta(min_length=1)]
    s1_criteria: S1BearerSubscriptionCriteria = msgspec.field(name="S1BearerSubscriptionCriteria")


class S1BearerSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.9, as it is answered."""

    event_type: Annotated[list[BearerChange], msgspec.Meta(min_length=1)]
    s1_criteria: S1BearerSubscriptionCriteria = msgspec.field(name="S1BearerSubscriptionCriteria")


class NrMeasRepUeSubscriptionRequest(
    _Request, frozen=True, kw_only=True, rename="camel", tag="NrMeasRepUeSubscription"
):
    """Clause 6.3.11, as it is posted."""

    filter_criteria_nr_mrs: FilterCriteriaNrMrs


class NrMeasRepUeSubscription(_Answer, frozen=True, kw_only=True, rename="camel", tag=True, omit_defaults=True):
    """Clause 6.3.11, as it is answered."""

    filter_criteria_nr_mrs: FilterCriteriaNrMrs


RadioSubscriptionRequest = (
    CellChangeSubscriptionRequest
    | RabEstSubscriptionRequest
    | RabModSubscriptionRequest
    | RabRelSubscriptionRequest
    | MeasRepUeSubscriptionRequest
    | MeasTaSubscriptionRequest
    | CaReconfSubscriptionRequest
    | S1BearerSubscriptionRequest
    | NrMeasRepUeSubscriptionRequest
)

RadioSubscription = (
    CellChangeSubscription
    | RabEstSubscription
    | RabModSubscription
    | RabRelSubscription
    | MeasRepUeSubscription
    | MeasTaSubscription
    | CaReconfSubscription
    | S1BearerSubscription
    | NrMeasRepUeSubscription
)

_ANSWERS: dict[type[Any], type[Any]] = {
    CellChangeSubscriptionRequest: CellChangeSubscription,
    RabEstSubscriptionRequest: RabEstSubscription,
    RabModSubscriptionRequest: RabModSubscription,
    RabRelSubscriptionRequest: RabRelSubscription,
    MeasRepUeSubscriptionRequest: MeasRepUeSubscription,
    MeasTaSubscriptionRequest: MeasTaSubscription,
    CaReconfSubscriptionRequest: CaReconfSubscription,
    S1BearerSubscriptionRequest: S1BearerSubscription,
    NrMeasRepUeSubscriptionRequest: NrMeasRepUeSubscription,
}


def topic_of_request(message: RadioSubscriptionRequest) -> Topic:
    """What is subscribed to."""
    return Topic(_ANSWERS[type(message)].__name__)


def with_defaults(message: RadioSubscriptionRequest) -> RadioSubscriptionRequest:
    """The request with what the standard lets a client leave away and the platform answer (clause 6.3.2, hoStatus)."""
    if isinstance(message, CellChangeSubscriptionRequest) and not message.filter_criteria_assoc_ho.ho_status:
        criteria = msgspec.structs.replace(message.filter_criteria_assoc_ho, ho_status=[HandoverStatus.COMPLETED])
        return msgspec.structs.replace(message, filter_criteria_assoc_ho=criteria)
    return message


def app_instance_of(message: RadioSubscriptionRequest) -> str:
    """The application instance that the criteria name; empty where they name none."""
    named = getattr(_criteria_of(message), "app_instance_id", None)
    return named or ""


def make_answer(message: RadioSubscriptionRequest, shared: dict[str, Any]) -> RadioSubscription:
    """The answer to a subscription that was posted so; `shared` are the attributes of `SubscriptionAnswer` and the deadline."""
    kind = _ANSWERS[type(message)]
    own = {name: getattr(message, name) for name in kind.__struct_fields__ if name not in _Answer.__struct_fields__}
    answer: RadioSubscription = kind(**own, **shared)
    return answer


def to_interest(message: RadioSubscriptionRequest) -> RadioInterest:
    """Which happenings the subscription is for."""
    criteria: Any = _criteria_of(message)
    cells = getattr(criteria, "ecgi", None) or getattr(criteria, "nrcgi", None)
    associates = getattr(criteria, "associate_id", None)
    erab_ids = getattr(criteria, "erab_id", None)
    return RadioInterest(
        topic=topic_of_request(message),
        associates=frozenset(map(to_associate, associates)) if associates else None,
        cells=frozenset(map(to_cell_name, cells)) if cells else None,
        codes=_codes_of(message),
        erab_ids=_values([erab_ids] if isinstance(erab_ids, int) else erab_ids),
        qci=getattr(criteria, "qci", None),
    )


def _criteria_of(message: RadioSubscriptionRequest) -> Any:
    match message:
        case CellChangeSubscriptionRequest():
            return message.filter_criteria_assoc_ho
        case RabEstSubscriptionRequest() | RabModSubscriptionRequest() | RabRelSubscriptionRequest():
            return message.filter_criteria_qci
        case MeasRepUeSubscriptionRequest():
            return message.filter_criteria_assoc_tri
        case MeasTaSubscriptionRequest() | CaReconfSubscriptionRequest():
            return message.filter_criteria_assoc
        case S1BearerSubscriptionRequest():
            return message.s1_criteria
        case NrMeasRepUeSubscriptionRequest():
            return message.filter_criteria_nr_mrs
        case _:
            assert_never(message)


def _codes_of(message: RadioSubscriptionRequest) -> frozenset[int] | None:
    match message:
        case CellChangeSubscriptionRequest():
            return _values(message.filter_criteria_assoc_ho.ho_status)
        case MeasRepUeSubscriptionRequest():
            return _values(message.filter_criteria_assoc_tri.trigger)
        case NrMeasRepUeSubscriptionRequest():
            return _values(message.filter_criteria_nr_mrs.trigger_nr)
        case S1BearerSubscriptionRequest():
            return _values(message.event_type)
        case _:
            return None


def _values(values: Sequence[int] | None) -> frozenset[int] | None:
    return frozenset(map(int, values)) if values else None
