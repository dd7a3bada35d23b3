"""Who may call what: the table covers every method that is served, and answers in words."""

from __future__ import annotations

from itertools import product

import pytest

from mec_apps.split_inference.peer_link import FRAMES_METHOD
from mec_platform.identity.access import OPEN_SERVICES, RULES, decide_refusal, rule_of
from mec_platform.identity.names import EVERY_GRANT, Grant, Identity, Role, identities_in, name_problem
from mec_platform.rpc.v1 import (
    content_store_pb2,
    control_plane_pb2,
    edge_node_pb2,
    federation_pb2,
    inference_pb2,
    membership_pb2,
    radio_pb2,
    registry_pb2,
)

EDGE_1 = Identity(Role.MEMBER, "edge-1")
FILES = (
    content_store_pb2,
    control_plane_pb2,
    edge_node_pb2,
    federation_pb2,
    inference_pb2,
    membership_pb2,
    radio_pb2,
    registry_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ONLY_PLATFORM = ["EdgeNode/LoadStage", "EdgeNode/CommitEpoch", "EdgeNode/AbortEpoch"]
ONLY_PLATFORM += ["Inference/SwitchPlan", "Inference/RevertPlan"]
ONLY_MEMBERS = ["DataPlane/Frames", "EdgeNode/ImportKv", "EdgeNode/ExportKv", "EdgeNode/SendKv", "EdgeNode/EndSession"]


def v1(method: str) -> str:
    return f"/mec_platform.rpc.v1.{method}"


def test_every_method_that_is_served_has_a_row_and_every_row_a_method():
    assert {method for method in METHODS if rule_of(method) is None} == set()
    assert set(RULES) - set(METHODS) == {FRAMES_METHOD}


def test_a_row_about_the_callers_own_name_names_a_field_of_the_request():
    for method, rule in RULES.items():
        if rule.own_name:
            assert rule.own_name in METHODS[method].input_type.fields_by_name
            # Each request of a stream is looked at by itself.
            assert METHODS[method].client_streaming == METHODS[method].server_streaming


@pytest.mark.parametrize(
    ("methods", "role"), [(ONLY_PLATFORM, Role.PLATFORM), (ONLY_MEMBERS, Role.MEMBER)], ids=["orders", "sessions"]
)
def test_orders_come_from_the_platform_and_sessions_from_members(methods, role):
    for method, caller in product(methods, Role):
        refusal = decide_refusal(v1(method), [Identity(caller, "x")], None, EVERY_GRANT)
        assert (refusal is None) == (caller is role), (method, caller)


def test_a_member_speaks_for_itself_alone():
    assert decide_refusal(v1("CapacityProfiler/Report"), [EDGE_1], "edge-1") is None
    refusal = decide_refusal(v1("CapacityProfiler/Report"), [EDGE_1], "edge-2")
    assert refusal == (
        "/mec_platform.rpc.v1.CapacityProfiler/Report of 'edge-2' comes from member edge-1: "
        "everybody speaks for themselves alone"
    )


@pytest.mark.parametrize(
    ("method", "grant"),
    [("SendKv", Grant.GATEWAY), ("ExportKv", Grant.GATEWAY), ("EndSession", Grant.GATEWAY), ("ImportKv", Grant.NODE)],
)
def test_a_member_does_only_what_its_certificate_grants(method, grant):
    assert decide_refusal(v1(f"EdgeNode/{method}"), [EDGE_1], None, frozenset({grant})) is None
    refusal = decide_refusal(v1(f"EdgeNode/{method}"), [EDGE_1], None, EVERY_GRANT - {grant})
    assert refusal == (
        f"/mec_platform.rpc.v1.EdgeNode/{method} is not for member edge-1: its certificate does not grant it to be a {grant}"
    )


def test_a_name_in_another_role_does_not_count():
    both = [EDGE_1, Identity(Role.CLIENT, "edge-2")]
    assert decide_refusal(v1("CapacityProfiler/Report"), both, "edge-2") is not None


@pytest.mark.parametrize("caller", [[], [Identity(role, "x") for role in Role]], ids=["nobody", "everybody"])
def test_what_has_no_row_is_for_nobody(caller):
    assert decide_refusal("/mec_platform.rpc.v1.EdgeNode/Unheard", caller, None) is not None
    assert decide_refusal("/elsewhere.v1.ServiceRegistry/Watch", caller, None) is not None


def test_a_certificate_that_names_nobody_opens_nothing():
    for method in (*RULES, *(f"{service}/Any" for service in OPEN_SERVICES)):
        assert decide_refusal(method, [], "") is not None


def test_identities_are_read_from_their_uris_alone():
    uris = ["urn:mec:member:edge-1", "urn:mec:client:a:b", "urn:mec:king:x", "urn:mec:member:", "https://example/"]
    assert identities_in(uris) == {EDGE_1, Identity(Role.CLIENT, "a:b")}
    assert identities_in([each.uri for each in identities_in(uris)]) == identities_in(uris)


@pytest.mark.parametrize("name", ["Edge-1", "edge.1", "-edge", "edge-", "", "a" * 58, "*", "edge 1", "edge\n1"])
def test_names_that_could_pass_for_others_are_for_no_member(name):
    assert name_problem(Role.MEMBER, name) is not None
