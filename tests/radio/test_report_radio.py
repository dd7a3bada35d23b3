"""gRPC ReportRadio on a real server: every kind of report, and what is said of those that cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
import pytest

from mec_platform.radio.grpc_service import MOST_REPORTS, RadioAccessService
from mec_platform.radio.network import RadioNetwork
from mec_platform.radio.values import Bearer, BitRates, Technology
from mec_platform.registry.clock import SystemClock
from mec_platform.rpc.endpoints import make_server, open_channel, start_server
from mec_platform.rpc.v1 import radio_pb2 as pb
from mec_platform.rpc.v1 import radio_pb2_grpc

CELL = pb.RadioCell(mcc="001", mnc="01", cell_id="5c4225714")
OTHER = pb.RadioCell(mcc="001", mnc="01", cell_id="5C422503D")
UE = pb.RadioUe(ipv4=["198.51.100.7"], temporary_id=pb.TemporaryUeId(mmec="1a", mtmsi="2b"))
BEARER = pb.RadioBearer(erab_id=5, qci=9, rates=pb.BearerRates(mbr_dl=4, mbr_ul=3, gbr_dl=2, gbr_ul=1))
TUNNEL = pb.S1Bearer(
    erab_id=5,
    enb=pb.TunnelEnd(ip_address="192.0.2.1", tunnel_id="1a"),
    sgw=pb.TunnelEnd(ip_address="192.0.2.2", tunnel_id="1b"),
)
MEASUREMENT = pb.RadioMeasurement(
    quality=pb.ReceptionQuality(rsrp_dbm=-90, sinr_db=10),
    trigger=12,
    neighbours=[pb.NeighbourCell(cell=OTHER, quality=pb.ReceptionQuality(rsrp_dbm=-99))],
    round_trip_ms=20,
)

Report = Callable[..., "grpc.aio.StreamStreamCall"]


@pytest.fixture
def network() -> RadioNetwork:
    return RadioNetwork(SystemClock())


@pytest.fixture
async def report(network: RadioNetwork) -> AsyncIterator[Report]:
    server = make_server()
    radio_pb2_grpc.add_RadioAccessServicer_to_server(RadioAccessService(network), server)
    address = await start_server(server, "127.0.0.1", 0, ("mec_platform.rpc.v1.RadioAccess",))
    async with open_channel(address) as channel:
        stub = radio_pb2_grpc.RadioAccessStub(channel)

        def send(*messages: pb.RadioReports) -> grpc.aio.StreamStreamCall:
            return stub.ReportRadio(iter(messages))

        yield send
    await server.stop(None)


def of(source: str = "a simulator", *reports: pb.RadioReport) -> pb.RadioReports:
    return pb.RadioReports(source=source, reports=reports)


async def taken(call: grpc.aio.StreamStreamCall) -> list[int]:
    return [reply.taken async for reply in call]


async def test_every_kind_of_report_arrives_and_each_message_is_answered(network, report):
    happened: list[str] = []
    network.add_listener(lambda each: happened.append(type(each).__name__))
    kinds = [
        pb.RadioReport(ue=UE, cell=CELL, attached=pb.UeAttached()),
        pb.RadioReport(ue=UE, handover=pb.Handover(status=pb.HANDOVER_STATUS_IN_PREPARATION, targets=[OTHER])),
        pb.RadioReport(ue=UE, handover=pb.Handover(status=pb.HANDOVER_STATUS_COMPLETED, targets=[OTHER])),
        pb.RadioReport(ue=UE, bearer_established=BEARER),
        pb.RadioReport(ue=UE, bearer_modified=pb.RadioBearer(erab_id=5, qci=7)),
        pb.RadioReport(ue=UE, bearer_released=pb.RadioBearer(erab_id=5)),
        pb.RadioReport(ue=UE, measurement=MEASUREMENT),
        pb.RadioReport(ue=UE, timing_advance=pb.TimingAdvance(timing_advance=7)),
        pb.RadioReport(ue=UE, carriers=pb.CarrierReconfiguration(added=[CELL])),
        pb.RadioReport(ue=UE, s1_bearer_established=TUNNEL),
        pb.RadioReport(ue=UE, ue_load=pb.LayerTwoCounters(values={"dl_gbr_delay_ue": 12})),
        pb.RadioReport(cell=CELL, cell_load=pb.LayerTwoCounters(values={"dl_total_prb_usage_cell": 40})),
    ]
    assert await taken(report(of("a simulator", *kinds[:5]), of("a simulator", *kinds[5:]))) == [5, 12]
    assert happened == [
        *("CellChanged", "CellChanged", "BearerChanged", "BearerChanged", "BearerChanged"),
        *("Measured", "TimingAdvanceChanged", "CarriersReconfigured", "S1BearerChanged"),
    ]
    (record,) = network.state.ues.values()
    assert (record.source, record.cell.cell_id, record.counters) == (
        "a simulator",
        "5C422503D",
        {"dl_gbr_delay_ue": 12},
    )
    assert record.measurement is not None
    assert (record.measurement.trigger, record.measurement.round_trip_s) == (12, 0.02)
    assert record.measurement.neighbours[0].quality.sinr_db is None
    ((cell, counters),) = network.state.loads.items()
    assert (cell.technology, counters) == (Technology.NR, {"dl_total_prb_usage_cell": 40})
    await taken(report(of("a simulator", pb.RadioReport(ue=UE, detached=pb.UeDetached()))))
    assert not network.state.ues


async def test_the_rates_of_a_bearer_are_kept(network, report):
    await taken(report(of("a simulator", pb.RadioReport(ue=UE, cell=CELL, bearer_established=BEARER))))
    (record,) = network.state.ues.values()
    assert record.bearers == {5: Bearer(5, 9, BitRates(4, 3, 2, 1))}


def measurement(**quality: float) -> pb.RadioReport:
    return pb.RadioReport(ue=UE, cell=CELL, measurement=pb.RadioMeasurement(quality=pb.ReceptionQuality(**quality)))


def attached(**changes: object) -> pb.RadioReport:
    return pb.RadioReport(**{"ue": UE, "cell": CELL, "attached": pb.UeAttached(), **changes})


@pytest.mark.parametrize(
    ("refused", "complaint"),
    [
        (pb.RadioReport(ue=UE, cell=CELL), "what: one of its fields"),
        (attached(ue=None), "ue: a UE is known by"),
        (attached(ue=pb.RadioUe(ipv4=["198.51.100.300"])), "ue.ipv4"),
        (attached(ue=pb.RadioUe(name="x" * 65)), "ue.name: 1 to 64"),
        (attached(ue=pb.RadioUe(ipv4=[f"198.51.100.{each}" for each in range(9)])), "1 to 8 identities"),
        (attached(cell=pb.RadioCell(mcc="1", mnc="01", cell_id="5C4225714")), "cell: a PLMN"),
        (attached(cell=pb.RadioCell(mcc="001", mnc="01", cell_id="5C4225")), "cell.cell_id: 7"),
        (attached(cell=pb.RadioCell(mcc="001", mnc="01", cell_id="5C422571X")), "cell.cell_id: 9 hexadecimal"),
        (attached(cell=None), "its first report must name its cell"),
        (measurement(rsrp_dbm=90), "measurement.quality.rsrp_dbm: -200 to 0"),
        (measurement(sinr_db=float("nan")), "measurement.quality.sinr_db"),
        (pb.RadioReport(ue=UE, cell=CELL, measurement=pb.RadioMeasurement(trigger=62)), "measurement.trigger"),
        (
            pb.RadioReport(
                ue=UE,
                cell=CELL,
                measurement=pb.RadioMeasurement(neighbours=[pb.NeighbourCell(cell=OTHER)] * 33),
            ),
            "at most 32 neighbours",
        ),
        (
            pb.RadioReport(ue=UE, cell=CELL, handover=pb.Handover(status=pb.HANDOVER_STATUS_COMPLETED)),
            "handover: a handover that is COMPLETED has 1 to 1 targets",
        ),
        (pb.RadioReport(ue=UE, cell=CELL, handover=pb.Handover(targets=[OTHER])), "handover.status"),
        (pb.RadioReport(ue=UE, cell=CELL, bearer_released=pb.RadioBearer(erab_id=16)), "id of 0 to 15"),
        (pb.RadioReport(ue=UE, cell=CELL, s1_bearer_released=pb.S1Bearer(erab_id=5)), "s1_bearer_released.enb"),
        (pb.RadioReport(ue=UE, cell=CELL, timing_advance=pb.TimingAdvance(timing_advance=7691)), "timing_advance"),
        (pb.RadioReport(ue=UE, cell=CELL, ue_load=pb.LayerTwoCounters(values={"nonsense": 1})), "'nonsense' is no"),
        (pb.RadioReport(cell_load=pb.LayerTwoCounters()), "cell: needed with cell_load"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field_and_what_came_before_stays(network, report, refused, complaint):
    good = pb.RadioReport(ue=pb.RadioUe(name="good"), cell=CELL, attached=pb.UeAttached())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await taken(report(of("a simulator", good, refused, attached())))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith("reports[1]: ")
    assert complaint in error.value.details()
    assert list(network.state.ues) == ["good"]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (of("", attached()), "source"),
        (of("a\nsimulator", attached()), "source"),
        (of("a simulator", *[attached()] * (MOST_REPORTS + 1)), "at most 200"),
    ],
)
async def test_a_message_without_a_source_or_with_too_much_is_refused_as_a_whole(network, report, message, complaint):
    with pytest.raises(grpc.aio.AioRpcError, match=complaint) as error:
        await taken(report(message))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not network.state.ues
