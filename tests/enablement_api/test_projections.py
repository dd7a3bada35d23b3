"""What services look like as EASProfile and as ServiceAPIDescription."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mec_platform.domain.capabilities import Capabilities, Kpis
from mec_platform.domain.services import EndPoint, HostPort, JsonText, TransportType
from mec_platform.enablement_api.registry_view.mapping import FILE, make_mapping
from mec_platform.enablement_api.registry_view.projections import to_eas_profile, to_service_api
from tests.enablement_api.offers import BARE, SERVICE, TRANSPORT, offer, reached_at


def as_json(message: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(message))


def test_a_service_that_says_everything_as_an_eas_profile():
    assert as_json(to_eas_profile(offer())) == {
        "easId": "faces",
        "endPt": {"uri": "https://faces.example.com:9000/faces/v1"},
        "provId": "example.com",
        "flexEasType": "vision",
        "easFeats": [
            "model=smollm2",
            "layers=0:12",
            "quantisation=int4",
            "hardwareTarget=zen4",
            "trustLevel=1",
            "label.rack=a",
        ],
        "avlRep": 30,
        "status": "ACTIVE",
    }


def test_a_service_that_says_everything_as_a_service_api():
    assert as_json(to_service_api(offer())) == {
        "apiName": "faces",
        "apiId": "service-1",
        "apiStatus": {"aefIds": ["app-1"]},
        "aefProfiles": [
            {
                "aefId": "app-1",
                "versions": [{"apiVersion": "v1"}],
                "protocol": "HTTP_1_1",
                "dataFormat": "JSON",
                "securityMethods": ["OAUTH"],
                "interfaceDescriptions": [
                    {"fqdn": "faces.example.com", "port": 9000},
                    {"ipv4Addr": "192.0.2.10"},
                ],
                "aefLocation": {"dcId": "pop-1"},
                "serviceKpis": {"avalMem": "2000 KB"},
            }
        ],
        "description": "Faces in pictures",
        "serviceAPICategory": "vision",
    }


def test_what_a_service_does_not_say_is_left_out():
    bare = offer(BARE, None, None)
    assert as_json(to_eas_profile(bare)) == {
        "easId": "faces",
        "endPt": {"uri": "https://faces.example.com:9000/faces/v1"},
        "status": "SUSPENDED",
    }
    api = as_json(to_service_api(bare))
    assert set(api) == {"apiName", "apiId", "apiStatus", "aefProfiles"}
    (profile,) = api["aefProfiles"]
    assert set(profile) == {"aefId", "versions", "dataFormat", "interfaceDescriptions"}


def test_an_api_is_active_nowhere_while_its_service_is_not():
    assert as_json(to_service_api(offer(BARE)))["apiStatus"] == {"aefIds": []}


def test_capabilities_that_say_nothing_still_have_a_trust_level():
    quiet = replace(SERVICE, capabilities=Capabilities())
    assert as_json(to_eas_profile(offer(quiet)))["easFeats"] == ["trustLevel=0"]


def test_kpis_without_memory_show_no_memory():
    (profile,) = as_json(to_service_api(offer(kpis=Kpis(measured_unix_ns=1, load=0.1))))["aefProfiles"]
    assert "serviceKpis" not in profile


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        (EndPoint(fqdn=("Faces.example.com.", "b.example.com")), {"fqdn": "faces.example.com"}),
        (
            EndPoint(addresses=(HostPort("192.0.2.1", 1), HostPort("2001:DB8::1", 2), HostPort("192.0.2.2", 3))),
            {"ipv4Addrs": ["192.0.2.1", "192.0.2.2"]},
        ),
        (EndPoint(addresses=(HostPort("2001:DB8::1", 2),)), {"ipv6Addrs": ["2001:db8::1"]}),
        (EndPoint(addresses=(HostPort("edge-1.example.com", 2),)), {"fqdn": "edge-1.example.com"}),
    ],
)
def test_an_eas_is_reached_in_the_one_way_that_the_record_has(endpoint, shown):
    assert as_json(to_eas_profile(reached_at(endpoint)))["endPt"] == shown


@pytest.mark.parametrize(
    "endpoint",
    [
        EndPoint(uris=()),
        EndPoint(alternative=JsonText("{}")),
        EndPoint(addresses=(HostPort("edge-1", 80), HostPort("fe80::1%eth0", 80))),
        EndPoint(fqdn=("under_score.example.com",)),
    ],
)
def test_what_an_end_point_cannot_say_has_no_eas_profile_and_an_api_without_interfaces(endpoint):
    assert to_eas_profile(reached_at(endpoint)) is None
    assert "aefProfiles" not in as_json(to_service_api(reached_at(endpoint)))


def test_hosts_of_uris_and_addresses_are_interfaces_and_broken_ones_are_not():
    endpoint = EndPoint(uris=("http://[2001:db8::1]:80/", "http://[broken/", "http://a.example.com:port/", "urn:x"))
    (profile,) = as_json(to_service_api(reached_at(endpoint)))["aefProfiles"]
    assert profile["interfaceDescriptions"] == [{"ipv6Addr": "2001:db8::1", "port": 80}]
    endpoint = EndPoint(addresses=(HostPort("edge-1.example.com", 81), HostPort("edge-1", 82)))
    (profile,) = as_json(to_service_api(reached_at(endpoint)))["aefProfiles"]
    assert profile["interfaceDescriptions"] == [{"fqdn": "edge-1.example.com", "port": 81}]


@pytest.mark.parametrize(
    ("transport", "protocol"),
    [
        ({"version": "2"}, "HTTP_2"),
        ({"protocol": "https", "version": "2.0"}, "HTTP_2"),
        ({"protocol": "gRPC", "version": "1"}, "HTTP_2"),
        ({"protocol": "MQTT", "version": "5"}, "MQTT"),
        ({"type": TransportType.WEBSOCKET, "protocol": "HTTP"}, "WEBSOCKET"),
        ({"version": "3"}, None),
        ({"protocol": "AMQP"}, None),
    ],
)
def test_a_protocol_is_shown_where_the_data_type_has_a_word_for_it(transport, protocol):
    (profile,) = as_json(to_service_api(reached_at(TRANSPORT.endpoint, **transport)))["aefProfiles"]
    assert profile.get("protocol") == protocol


def test_the_written_mapping_is_the_one_in_force():
    assert FILE.read_text(encoding="utf-8") == make_mapping(), f"run `python -m {make_mapping.__module__}`"
