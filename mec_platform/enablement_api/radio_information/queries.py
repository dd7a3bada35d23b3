"""The queries of `/rni/v2` (ETSI GS MEC 012 clauses 7.3 to 7.6): what is known of the radio network now.

Parameters AND, values of a list OR. What no RAN adapter has told is not in the answer: a query that finds nothing is answered with
an empty list, where the standard's message can have one, and with 404 where it cannot.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated

import msgspec
from aiohttp import web

from mec_platform.domain.credentials import Scope
from mec_platform.enablement_api.exchange import TimeStamp, json_response, read_list, read_value
from mec_platform.enablement_api.notifications.messages import RADIO_INFORMATION_ROOT
from mec_platform.enablement_api.operations import Operation, QueryParameter
from mec_platform.enablement_api.problem_details import BadRequest
from mec_platform.enablement_api.radio_information.query_messages import (
    L2Meas,
    PlmnInfo,
    RabInfo,
    S1BearerInfo,
    Wanted,
    list_bearers,
    list_cell_loads,
    list_s1_bearers,
    list_ue_loads,
)
from mec_platform.enablement_api.radio_information.values import from_plmn, from_unix_ns
from mec_platform.enablement_api.security.callers import CALLER
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.radio_state import UeRecord
from mec_platform.radio.values import (
    CELL_COUNTERS,
    LAST_ERAB_ID,
    UE_COUNTERS,
    Associate,
    AssociateKind,
    Bearer,
    S1Bearer,
    make_associate,
)
from mec_platform.registry.host import HostRegistry

QUERIES = f"{RADIO_INFORMATION_ROOT}/queries"
_ROW = partial(Operation, tag="Radio network information", scope=Scope.RADIO_INFORMATION, method="GET")

_COUNT = Annotated[int, msgspec.Meta(ge=0)]
_ERAB_ID = Annotated[int, msgspec.Meta(ge=0, le=LAST_ERAB_ID)]

_APP = QueryParameter("app_ins_id", str, "The application instance that asks; echoed.")
_APPS = QueryParameter("app_ins_id", str, "Application instances, separated by commas.", repeated=True)
_CELLS = QueryParameter("cell_id", str, "Cells by their identities, separated by commas.", repeated=True)
_TEMP_UES = QueryParameter("temp_ue_id", str, "UEs by their M-TMSI, separated by commas.", repeated=True)
_ERAB = QueryParameter("erab_id", _ERAB_ID, "Bearers of this id.")
_ERABS = QueryParameter("erab_id", _ERAB_ID, "Bearers of these ids, separated by commas.", repeated=True)
_QCI = QueryParameter("qci", _COUNT, "Bearers of this quality class.")
_RATES = {
    name: QueryParameter(f"erab_{name}", _COUNT, "Bearers of this rate, in bit/s.")
    for name in ("mbr_dl", "mbr_ul", "gbr_dl", "gbr_ul")
}
_ASSOCIATES = {
    AssociateKind.IPV4: "ue_ipv4_address",
    AssociateKind.IPV6: "ue_ipv6_address",
    AssociateKind.NATED_IP: "nated_ip_address",
    AssociateKind.GTP_TEID: "gtp_teid",
}
_UES = {
    kind: QueryParameter(name, str, "UEs that are known by one of these, separated by commas.", repeated=True)
    for kind, name in _ASSOCIATES.items()
}
_COUNTERS = {
    name: QueryParameter(name, _COUNT, "Cells or UEs of which this was measured (TS 36.314).")
    for name in (*CELL_COUNTERS, *UE_COUNTERS)
}
_MISSPELT = {
    "received_randomly_selecte_preambles_low_range_cell": "received_randomly_selected_preambles_low_range_cell"
}
"""As a file of the standard has it."""

_ALIASES = {name: QueryParameter(name, _COUNT, f"Another spelling of {meant}.") for name, meant in _MISSPELT.items()}


class RadioQueries:
    """Handlers over one radio network."""

    def __init__(self, host: HostRegistry, network: RadioNetwork) -> None:
        self._host = host
        self._network = network

    def operations(self) -> list[Operation]:
        """The four queries."""
        return [
            _ROW(
                path=f"{QUERIES}/rab_info",
                operation_id="queryRadioBearers",
                summary="Which radio access bearers UEs have",
                handler=self.get_rab_info,
                query=(_APP, _CELLS, *_UES.values(), _ERAB, _QCI, *_RATES.values()),
                answers={HTTPStatus.OK: RabInfo},
            ),
            _ROW(
                path=f"{QUERIES}/plmn_info",
                operation_id="queryNetworks",
                summary="Which mobile networks there are",
                handler=self.get_plmn_info,
                query=(_APPS,),
                answers={HTTPStatus.OK: list[PlmnInfo]},
            ),
            _ROW(
                path=f"{QUERIES}/s1_bearer_info",
                operation_id="queryS1Bearers",
                summary="Which S1 bearers UEs have",
                handler=self.get_s1_bearer_info,
                query=(_TEMP_UES, *_UES.values(), _CELLS, _ERABS),
                answers={HTTPStatus.OK: S1BearerInfo},
                errors=frozenset({HTTPStatus.NOT_FOUND}),
            ),
            _ROW(
                path=f"{QUERIES}/layer2_meas",
                operation_id="queryLayerTwoMeasurements",
                summary="What was measured on layer 2 of cells and UEs",
                handler=self.get_layer2_meas,
                query=(_APP, _CELLS, *_UES.values(), *_COUNTERS.values(), *_ALIASES.values()),
                answers={HTTPStatus.OK: L2Meas},
            ),
        ]

    async def get_rab_info(self, request: web.Request) -> web.Response:
        """Clause 7.3.3.1. `requestId` is what the client sent as X-Request-ID, or else one of the platform's making."""
        erab_id, qci = read_value(request, _ERAB), read_value(request, _QCI)
        rates = {name: read_value(request, each) for name, each in _RATES.items()}

        def accepts(bearer: Bearer) -> bool:
            return (
                erab_id in (None, bearer.erab_id)
                and qci in (None, bearer.qci)
                and all(value in (None, getattr(bearer.rates, name, None)) for name, value in rates.items())
            )

        cells = list_bearers(self._records(), _read_wanted(request), accepts)
        request_id = request.headers.get("X-Request-ID", "")[:128] or self._host.registry.new_id()
        return json_response(RabInfo(self._now(), self._app_instance(request), request_id, cells))

    async def get_plmn_info(self, request: web.Request) -> web.Response:
        """Clause 7.4.3.1. Application instances that are not registered here, and those of other clients, are left out."""
        names = dict.fromkeys(read_list(request, _APPS))
        if not names:
            raise BadRequest("app_ins_id is needed: the application instances that ask")
        plmns = [from_plmn(each) for each in self._network.state.plmns()]
        known = [each for each in names if plmns and self._is_of_caller(request, each)]
        return json_response([PlmnInfo(self._now(), each, plmns) for each in known])

    async def get_s1_bearer_info(self, request: web.Request) -> web.Response:
        """Clause 7.5.3.1; 404 where no UE has such a bearer."""
        temp_ues, erab_ids = set(read_list(request, _TEMP_UES)), set(read_list(request, _ERABS))

        def accepts(record: UeRecord, bearer: S1Bearer) -> bool:
            temporary = record.ue.temp_ue_id
            return (not erab_ids or bearer.erab_id in erab_ids) and (
                not temp_ues or (temporary is not None and temporary.mtmsi in temp_ues)
            )

        found = list_s1_bearers(self._records(), _read_wanted(request), accepts)
        if not found:
            raise web.HTTPNotFound()
        return json_response(S1BearerInfo(self._now(), found))

    async def get_layer2_meas(self, request: web.Request) -> web.Response:
        """Clause 7.6.3.1. A counter that is given selects those cells, or those UEs, of which just this was measured."""
        wanted = _read_wanted(request)
        read = {_MISSPELT.get(each.name, each.name): read_value(request, each) for each in _ALIASES.values()}
        read = {name: value for name, value in read.items() if value is not None}
        read |= {name: value for name, each in _COUNTERS.items() if (value := read_value(request, each)) is not None}
        of_cells = {name: value for name, value in read.items() if name in CELL_COUNTERS}
        of_ues = {name: value for name, value in read.items() if name in UE_COUNTERS}
        # Who asks for UEs is not told of cells that no such UE is in.
        cells = [] if wanted.associates is not None else list_cell_loads(self._network.state.loads, wanted, of_cells)
        return json_response(L2Meas(self._now(), cells, list_ue_loads(self._records(), wanted, of_ues)))

    def _records(self) -> list[UeRecord]:
        return sorted(self._network.state.ues.values(), key=lambda each: each.ue.name)

    def _now(self) -> TimeStamp:
        return from_unix_ns(self._network.now_unix_ns)

    def _app_instance(self, request: web.Request) -> str:
        """Who asks: as it says, or else the one instance that its client has."""
        named: str | None = read_value(request, _APP)
        caller = request.get(CALLER)
        if named is not None or caller is None:
            return named or ""
        owned = self._host.registry.state.apps_of(caller.client_id)
        return next(iter(owned)) if len(owned) == 1 else ""

    def _is_of_caller(self, request: web.Request, app_instance_id: str) -> bool:
        app = self._host.applications.find(app_instance_id)
        caller = request.get(CALLER)
        return app is not None and (caller is None or app.owner == caller.client_id or Scope.ADMIN in caller.scopes)


def _read_wanted(request: web.Request) -> Wanted:
    """Raises BadRequest where an address is none."""
    cell_ids = frozenset(each.upper() for each in read_list(request, _CELLS))
    associates: set[Associate] = set()
    for kind, parameter in _UES.items():
        try:
            associates |= {make_associate(kind, each) for each in read_list(request, parameter)}
        except ValueError as error:
            raise BadRequest(f"{parameter.name}: {error}") from error
    return Wanted(cell_ids=cell_ids or None, associates=frozenset(associates) or None)
