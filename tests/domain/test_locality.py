"""Localities and their tree: what counts as local, and what makes no tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_platform.domain.locality import WIDENING, Area, Locality, LocalityError, LocalityTree, LocalityType
from mec_platform.locality_file import read_locality_tree

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/localities.toml"
KIND = LocalityType


def test_a_host_knows_every_area_that_it_lies_in():
    harbour = read_locality_tree(EXAMPLE).locality_of(mec_host="harbour-1")
    assert harbour == Locality(
        mec_host="harbour-1", nfvi_pop="harbour-pop", zone="harbour", zone_group="north", mec_system="city"
    )


def test_an_nfvi_node_is_on_its_host_alone():
    tree = read_locality_tree(EXAMPLE)
    node = tree.locality_of(nfvi_node="harbour-1-a")
    assert (node.nfvi_node, node.mec_host, node.mec_system) == ("harbour-1-a", "harbour-1", "city")
    assert tree.locality_of(mec_host="harbour-1", nfvi_node="harbour-1-a") == node
    with pytest.raises(LocalityError, match="'harbour-1-a' is one of MEC host 'harbour-1', not of 'harbour-2'"):
        tree.locality_of(mec_host="harbour-2", nfvi_node="harbour-1-a")


def test_a_place_outside_the_tree_is_refused_with_those_that_are_in_it():
    tree = LocalityTree.grow([Area(KIND.MEC_HOST, "b"), Area(KIND.MEC_HOST, "a")])
    with pytest.raises(LocalityError, match=r"there is no MEC host 'c'; known: a, b"):
        tree.locality_of(mec_host="c")
    with pytest.raises(LocalityError, match=r"there is no NFVI node 'n'; known: none"):
        tree.locality_of(nfvi_node="n")
    with pytest.raises(LocalityError, match="name a MEC host or an NFVI node"):
        tree.locality_of()


def test_hosts_of_one_unnamed_area_share_it_when_they_share_a_narrower_one():
    tree = LocalityTree.grow(
        [Area(KIND.ZONE, "z"), *(Area(KIND.MEC_HOST, name, (KIND.ZONE, "z")) for name in ("a", "b"))]
    )
    a, b = tree.locality_of(mec_host="a"), tree.locality_of(mec_host="b")
    assert [scope for scope in WIDENING if a.shares(scope, b)] == [KIND.ZONE, KIND.ZONE_GROUP, KIND.MEC_SYSTEM]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mec_hosts = 3", r"write \[\[mec_hosts\]\], one table for each"),
        ("[[mec_host]]\nname = 'a'", "unknown table 'mec_host'; known: nfvi_nodes, mec_hosts"),
        ("[[mec_hosts]]", r"mec_hosts\[0\]: MEC host needs a name"),
        ("[[mec_hosts]]\nname = 3", r"mec_hosts\[0\]: every attribute is a text"),
        ("[[mec_hosts]]\nname = 'a'\nzne = 'z'", r"mec_hosts\[0\]: unknown attribute 'zne'; known: name, nfvi_node"),
        ("[[mec_hosts]]\nname = 'a'\nzone = 'z'", "MEC host 'a' lies in zone 'z', which is not given"),
        ("[[zones]]\nname = 'z'\nzone = 'z'", r"zones\[0\]: zone 'z' cannot lie in zone 'z'"),
        ("[[zones]]\nname = 'z'\nmec_host = 'a'", r"zones\[0\]: zone 'z' cannot lie in MEC host 'a'"),
        ("[[mec_hosts]]\nname = 'a'\n[[mec_hosts]]\nname = 'a'", "MEC host 'a' is given twice"),
        ("[[nfvi_nodes]]\nname = 'n'", "NFVI node 'n' must lie in a MEC host"),
        ("[[zones]]\nname = 'z'\nzone_group = 'g'\nmec_system = 's'", "name the narrowest area"),
        ("[[", "is no TOML file"),
    ],
)
def test_a_file_that_makes_no_tree_is_refused_with_its_name_and_the_entry(tmp_path, text, reason):
    file = tmp_path / "where.toml"
    file.write_text(text)
    with pytest.raises(LocalityError, match=reason) as caught:
        read_locality_tree(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LocalityError, match=r"cannot read .*nowhere\.toml"):
        read_locality_tree(tmp_path / "nowhere.toml")


def trees(*, full: bool) -> st.SearchStrategy[LocalityTree]:
    """Trees with a few areas of each kind; in a full one every area lies in one of the next wider kind."""

    @st.composite
    def grow(draw: st.DrawFn) -> LocalityTree:
        areas: list[Area] = []
        for kind in reversed(WIDENING):
            for number in range(draw(st.integers(1, 3))):
                wider = [(area.kind, area.name) for area in areas if area.kind is not kind]
                if full:
                    wider = wider and [key for key in wider if key[0] is wider[-1][0]]
                elif kind is KIND.NFVI_NODE:
                    wider = [key for key in wider if key[0] is KIND.MEC_HOST]
                optional = not full and kind is not KIND.NFVI_NODE
                parent = draw(st.sampled_from(([None] if optional else []) + wider)) if wider else None
                areas.append(Area(kind, f"{kind}-{number}", parent))
        return LocalityTree.grow(draw(st.permutations(areas)))

    return grow()


def places(tree: LocalityTree) -> list[Locality]:
    found = []
    for number in range(3):
        for kind in ("mec_host", "nfvi_node"):
            try:
                found.append(tree.locality_of(**{kind: f"{kind.upper()}-{number}"}))
            except LocalityError:
                continue
    return found


@given(trees(full=False) | trees(full=True))
@settings(derandomize=True, max_examples=60)
def test_being_local_is_symmetric_reflexive_and_never_lost_by_a_wider_scope(tree: LocalityTree):
    for a in places(tree):
        for b in places(tree):
            local = [a.shares(scope, b) for scope in WIDENING]
            assert local == [b.shares(scope, a) for scope in WIDENING]
            assert local == sorted(local)
        assert all(a.shares(scope, a) for scope in WIDENING)


@given(trees(full=True))
@settings(derandomize=True, max_examples=30)
def test_in_a_full_tree_two_hosts_are_local_exactly_where_they_lie_in_one_area(tree: LocalityTree):
    hosts = [place for place in places(tree) if not place.nfvi_node]
    for a in hosts:
        for b in hosts:
            for scope in WIDENING[1:]:
                assert a.shares(scope, b) == (getattr(a, scope.attribute) == getattr(b, scope.attribute))
