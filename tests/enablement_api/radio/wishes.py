"""The nine subscriptions as clients post them, and reports that make something happen for each."""

from __future__ import annotations

from typing import Any

from mec_platform.radio.reports import (
    BearerReported,
    CarriersReported,
    HandoverReported,
    Report,
    S1BearerReported,
    TimingAdvanceReported,
    UeReport,
)
from mec_platform.radio.values import Bearer, BearerChange, HandoverStatus
from tests.radio.reporting import LTE, RATES, TUNNEL, UE, A, B, measured

ECGI = {"plmn": {"mcc": "001", "mnc": "01"}, "cellId": "5C4225714"}
ASSOCIATE = {"type": 1, "value": "198.51.100.7"}


def wish(kind: str, **criteria: Any) -> dict[str, Any]:
    """A subscription without a way of delivery; `criteria` go into its filter."""
    name = {
        "CellChange": "filterCriteriaAssocHo",
        "RabEst": "filterCriteriaQci",
        "RabMod": "filterCriteriaQci",
        "RabRel": "filterCriteriaQci",
        "MeasRepUe": "filterCriteriaAssocTri",
        "NrMeasRepUe": "filterCriteriaNrMrs",
        "MeasTa": "filterCriteriaAssoc",
        "CaReconf": "filterCriteriaAssoc",
        "S1Bearer": "S1BearerSubscriptionCriteria",
    }[kind]
    needed: dict[str, Any] = {"eventType": [1, 2, 3]} if kind == "S1Bearer" else {}
    least = {"RabEst": {"qci": 9}, "RabMod": {"qci": 9, "erabId": 5}, "RabRel": {"qci": 9, "erabId": 5}}.get(kind, {})
    return {"subscriptionType": f"{kind}Subscription", name: least | criteria, **needed}


def bearer(change: BearerChange, qci: int = 9) -> BearerReported:
    return BearerReported(UE, A, change=change, bearer=Bearer(5, qci, RATES))


KINDS: dict[str, tuple[list[Report], Report]] = {
    "CellChange": (
        [UeReport(UE, A)],
        HandoverReported(UE, A, status=HandoverStatus.COMPLETED, targets=(B,)),
    ),
    "RabEst": ([], bearer(BearerChange.ESTABLISHED)),
    "RabMod": ([bearer(BearerChange.ESTABLISHED, 7)], bearer(BearerChange.MODIFIED)),
    "RabRel": ([bearer(BearerChange.ESTABLISHED)], bearer(BearerChange.RELEASED)),
    "MeasRepUe": ([], measured(-90, 10, rsrq_db=-12, cell=LTE, trigger=12)),
    "NrMeasRepUe": ([], measured(-77, 23, round_trip_s=0.0205)),
    "MeasTa": ([], TimingAdvanceReported(UE, A, timing_advance=7)),
    "CaReconf": ([], CarriersReported(UE, A, added=(B,))),
    "S1Bearer": ([], S1BearerReported(UE, A, change=BearerChange.ESTABLISHED, bearer=TUNNEL)),
}
"""What has to be reported before, and what is told of, by kind of subscription."""

TOLD: dict[str, dict[str, Any]] = {
    "CellChange": {
        "srcEcgi": ECGI,
        "trgEcgi": [{**ECGI, "cellId": "5C422503D"}],
        "hoStatus": 3,
        "tempUeId": {"mmec": "1a", "mtmsi": "2b3c"},
    },
    "RabEst": {
        "ecgi": ECGI,
        "erabId": 5,
        "erabQosParameters": {
            "qci": 9,
            "qosInformation": {"erabMbrDl": 4, "erabMbrUl": 3, "erabGbrDl": 2, "erabGbrUl": 1},
        },
        "tempUeId": {"mmec": "1a", "mtmsi": "2b3c"},
    },
    "RabMod": {"ecgi": ECGI, "erabId": 5},
    "RabRel": {"ecgi": ECGI, "erabReleaseInfo": {"erabId": 5}},
    "MeasRepUe": {"ecgi": {**ECGI, "cellId": "5C42250"}, "rsrp": 51, "rsrq": 16, "sinr": 67, "trigger": 12},
    "NrMeasRepUe": {
        "triggerNr": 0,
        "servCellMeasInfo": [
            {
                "nrcgi": {"plmn": ECGI["plmn"], "nrcellId": "5C4225714", "nrCellId": "5C4225714"},
                "sCell": {"measQuantityResultsSsbCell": {"rsrp": 80, "sinr": 93}},
            }
        ],
        "roundTripMs": 20.5,
    },
    "MeasTa": {"ecgi": ECGI, "timingAdvance": 7},
    "CaReconf": {"ecgi": ECGI, "secondaryCellAdd": [{"ecgi": {**ECGI, "cellId": "5C422503D"}}]},
    "S1Bearer": {
        "s1Event": 1,
        "s1UeInfo": {
            "associateId": [ASSOCIATE],
            "ecgi": [ECGI],
            "s1BearerInfo": [
                {
                    "erabId": 5,
                    "enbInfo": {"ipAddress": "192.0.2.1", "tunnelId": "1a"},
                    "sGwInfo": {"ipAddress": "192.0.2.2", "tunnelId": "1b"},
                }
            ],
            "tempUeId": {"mmec": "1a", "mtmsi": "2b3c"},
        },
    },
}
"""What of each notification is its own."""
