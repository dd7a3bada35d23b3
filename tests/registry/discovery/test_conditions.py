"""Conditions: what they may say, what they are told where they may not, and what holds for every one that is taken."""

from __future__ import annotations

from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_platform.domain.capabilities import Kpis
from mec_platform.domain.locality import Locality
from mec_platform.registry.discovery.conditions import (
    FALSE,
    MOST_PROGRAMS,
    CompiledCondition,
    Refusal,
    compile_condition,
)
from mec_platform.registry.discovery.environment import NAMES, Kind
from mec_platform.registry.discovery.grammar import (
    DEEPEST_NESTING,
    LONGEST_CONDITION,
    ConditionError,
    check_condition,
)
from tests.registry.discovery.services import HERE, NEXT_DOOR, service

EDGE = service(
    "s-1",
    locality=NEXT_DOOR,
    category="ai",
    layers=(10, 20),
    model="smollm2",
    quantisation="int4",
    hardware_target="x86-64-v4",
    trust_level=2,
    labels={"tier": "gold", "floor-no": "3", 'a"b\n': "odd"},
)
BUSY = Kpis(measured_unix_ns=0, load=0.75, capacity=4, free_memory_bytes=2**33, radio_quality_db=-3.5)


def refusal(condition: str, kpis: Kpis | None = BUSY, consumer: Locality = HERE) -> Refusal | None:
    return compile_condition(condition).refusal(EDGE, kpis, consumer)


@pytest.mark.parametrize(
    "condition",
    [
        "true",
        "kpi.load < 0.8 && kpi.capacity >= 4",
        "kpi.load * 2.0 + 0.5 == 2.0",
        "double(kpi.free_memory_bytes) / 2.0 > 4e9",
        "kpi.free_memory_bytes / 1073741824 == 8",
        "kpi.radio_quality_db > -10.0",
        "kpi.capacity / 8.0 == 0.5",
        "-kpi.radio_quality_db == 3.5",
        "kpi.capacity in [2.0, 4.0]",
        "service.id == 's-1' && service.name == 'inference' && service.version == '1.0'",
        "service.state == 'ACTIVE' && service.category == \"ai\"",
        "service.trust_level >= 1 && service.trust_level % 2 == 0",
        "service.model == 'smollm2' && service.layers.start == 10 && service.layers.stop - service.layers.start == 10",
        "has(service.layers) && has(service.layers.stop) && has(service.name)",
        "service.quantisation in ['int4', 'int8']",
        "service.hardware_target.startsWith('x86') && service.hardware_target.endsWith('v4')",
        "service.model.contains('llm')",
        "service.locality.zone == consumer.zone && service.locality.mec_host != consumer.mec_host",
        "service.distance == 3 && !service.is_local && service.scope_of_locality == 'MEC_HOST'",
        "service.labels.tier == 'gold' && service.labels['floor-no'] == '3'",
        "has(service.labels.tier) && !has(service.labels['rack'])",
        "'tier' in service.labels && !('rack' in service.labels)",
        "'tier' in service.labels && 'floor-no' in service.labels && service.labels.tier != service.labels['floor-no']",
        "service.labels['a\\\"b\\n'] == 'odd'",
        "!has(kpi.rtt_ms) || kpi.rtt_ms < 5.0",
        "kpi.rtt_ms < 5.0 || kpi.load < 1.0",
        "has(kpi.rtt_ms) ? kpi.rtt_ms < 5.0 : kpi.load < 0.8",
        "(kpi.load < 0.5) == (kpi.capacity < 2.0)",
        "1 < 2 == true",
        "!!true && --1 == 1",
        "1 - -1 == 2",
        "2 + 3 * 4 == 14 && (2 + 3) * 4 == 20",
        "true ? true : true ? false : false",
        "'in' == 'in' && '&&' != '||'",
    ],
)
def test_holds(condition: str):
    assert refusal(condition) is None


@pytest.mark.parametrize("condition", ["false", "kpi.load < 0.5", "service.name == 'Inference'", "consumer.zone == ''"])
def test_is_false(condition: str):
    assert refusal(condition) is FALSE


@pytest.mark.parametrize(
    ("condition", "missing"),
    [
        ("kpi.rtt_ms < 5.0", "kpi.rtt_ms"),
        ("kpi.load < 1.0 && 20.0 < kpi.tokens_per_s", "kpi.tokens_per_s"),
        ("service.labels.rack == '7'", "service.labels.rack"),
        ("service.labels['a b'] != '7'", "service.labels.a b"),
    ],
)
def test_a_value_that_is_needed_and_absent_is_named(condition: str, missing: str):
    assert refusal(condition) == Refusal(missing=missing)


def test_without_kpis_that_count_those_that_are_needed_are_missing():
    assert refusal("kpi.load < 0.8", kpis=None) == Refusal(missing="kpi.load")
    assert refusal("!has(kpi.load)", kpis=None) is None


def test_a_service_without_capabilities_has_no_layers_and_no_labels():
    bare = service("s-2")
    condition = compile_condition("!has(service.layers) && !('tier' in service.labels) && service.model == ''")
    assert condition.refusal(bare, None, HERE) is None
    assert compile_condition("service.layers.start == 0").refusal(bare, None, HERE) == Refusal(
        missing="service.layers.start"
    )


def test_arithmetic_that_fails_refuses_the_service_and_says_why():
    failed = refusal("1 / (service.trust_level - 2) == 1")
    assert failed is not None
    assert "zero" in failed.problem
    overflown = refusal(f"kpi.free_memory_bytes * {2**62} > 0")
    assert overflown is not None
    assert "overflow" in overflown.problem


def test_an_error_that_no_absent_value_explains_is_not_taken_for_one():
    broken = CompiledCondition(1, cel.compile("surprise"), (), {})
    with pytest.raises(RuntimeError, match="surprise"):
        broken.refusal(EDGE, BUSY, HERE)


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("", "expected a value but found the end"),
        ("kpi.load <", r"expected a value but found the end \(character 11"),
        ("kpi.load < 0.5 kpi", r"expected an operator but found 'kpi' \(character 16"),
        ("(true", r"expected '\)' but found the end"),
        ("kpi.load < 0.5 # comment", r"cannot read the condition from '# comment' on \(character 16\)"),
        ("'open", "cannot read the condition from"),
        ("kpi.load", "must be a bool, this one is a double; compare it with something"),
        ("kpi.laod < 0.5", "there is no kpi.laod; there are kpi.capacity, .*kpi.load"),
        ("service.locality.rack == ''", "there is no service.locality.rack; there are service.locality.mec_host"),
        ("service.nome == ''", "there is no service.nome; there are .*service.labels.<key>.*service.name"),
        ("service == 1", "service is no value by itself; there are service"),
        (
            "service.layers == 1",
            "service.layers is no value by itself; there are service.layers.start, service.layers.stop",
        ),
        ("load < 0.5", "there is no 'load'; there are consumer.mec_host.*kpi.load"),
        ("kpi.load.x < 1.0", "there is no 'x' of a double here"),
        ("kpi['load'] < 1.0", r"expected|there is no|no value by itself"),
        ("kpi.load + 1 < 2", r"double \+ int is not defined; write 2.0 for 2, or double\(...\)"),
        ("5.0 % 2.0 == 1.0", "double % double is not defined"),
        ("service.name + 'x' == 'y'", r"string \+ string is not defined"),
        ("service.name == 1", "string == int is not defined"),
        ("true < false", "bool < bool is not defined"),
        ("kpi.load && true", "double && bool is not defined"),
        ("!kpi.load", "a bool is needed after !, found a double"),
        ("-service.name == ''", "- needs a number, found a string"),
        ("kpi.load ? true : false", "a bool is needed before ?"),
        ("true ? 1 : 'a'", "both sides of : must be of one type, found int and string"),
        ("service.name in ['a', 1]", "a string is never in a list with a int"),
        (
            "service.name in service.labels",
            'after in there is a list, or service.labels as in: "key" in service.labels',
        ),
        ("'a' in service.name", "after in there is a list"),
        ("service.labels[service.name] == 'a'", "expected a key of service.labels in quotes but found 'service'"),
        ("service.labels == 'a'", "expected '.' but found '=='"),
        ("9223372036854775808 > 1", "too large for an int; write it as a double: 9223372036854775808.0"),
        ("1e999 > 1.0", "1e999 is too large for a double"),
        ("double('1') > 0.0", "double needs a number, found a string"),
        ("1.contains('a')", "a string is needed before .contains|expected|there is no"),
        ("service.name.contains(1)", "a string is needed as argument of contains, found a int"),
    ],
)
def test_what_is_no_condition_is_told_why(condition: str, problem: str):
    with pytest.raises(ConditionError, match=problem):
        compile_condition(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "[1, 2].all(x, x > 0)",
        "service.labels.exists(k, k == 'a')",
        "service.name.matches('(a*)*b')",
        "size(service.name) < 5",
        "timestamp('2020-01-01T00:00:00Z') < timestamp('2021-01-01T00:00:00Z')",
        "[[1]] == [[1]]",
        "{'a': 1}.a == 1",
        "Foo{a: 1} == Foo{a: 1}",
        "b'a' == b'a'",
        "r'a' == 'a'",
        "1u < 2u",
        "null == null",
    ],
)
def test_what_has_no_bound_or_no_use_is_not_offered(condition: str):
    cel.compile(condition)  # it is CEL
    with pytest.raises(ConditionError):
        compile_condition(condition)


def test_length_and_nesting_are_bounded():
    assert refusal("true" + " " * (LONGEST_CONDITION - 4)) is None
    with pytest.raises(ConditionError, match="at most 500 characters, found 501"):
        compile_condition("true" + " " * (LONGEST_CONDITION - 3))
    inner = DEEPEST_NESTING - 1
    assert refusal("(" * inner + "true" + ")" * inner) is None
    for deep in ("(" * 200 + "true" + ")" * 200, "true ? true : " * 30 + "true", "1 in [" * 40):
        with pytest.raises(ConditionError, match="nests at most 16 levels"):
            compile_condition(deep)


@pytest.mark.parametrize("part", ["1 + ", "!", "-", "true && ", "false || ", "true == "])
def test_the_longest_chains_of_operators_are_evaluated(part: str):
    last = "true" if part in ("!", "true && ", "false || ", "true == ") else "1"
    text = part * ((LONGEST_CONDITION - 10) // len(part)) + last + ("" if last == "true" else " > -2")
    assert refusal(text) in (None, FALSE)


def test_programs_are_kept_up_to_a_bound():
    assert compile_condition("kpi.load < 0.125") is compile_condition("kpi.load < 0.125")
    for number in range(MOST_PROGRAMS + 1):
        compile_condition(f"kpi.load < {number}.0")
    assert compile_condition.cache_info().currsize == MOST_PROGRAMS


# Every condition of the grammar, by type.

LITERALS = {
    Kind.BOOL: st.sampled_from(["true", "false"]),
    Kind.INT: st.integers(0, 9).map(str),
    Kind.DOUBLE: st.sampled_from(["0.5", "1.0", "2e3", "1.5e-2"]),
    Kind.STRING: st.sampled_from(["'a'", '"gold"', "''", "'\\n\\'\\\\'", "'é😀'"]),
}
NUMBERS = (Kind.INT, Kind.DOUBLE)


def texts(kind: Kind, depth: int) -> st.SearchStrategy[str]:
    named = st.sampled_from([path for path, name in NAMES.items() if name.kind is kind])
    leaf = st.one_of(LITERALS[kind], named)
    if kind is Kind.STRING:
        return st.one_of(leaf, st.sampled_from(["service.labels.tier", "service.labels['rack']"]))
    if depth == 0:
        return leaf
    below = {each: texts(each, depth - 1) for each in Kind}
    same = below[kind]
    choices: list[st.SearchStrategy[str]] = [
        leaf,
        same.map(lambda text: f"({text})"),
        st.tuples(below[Kind.BOOL], same, same).map(lambda each: "({} ? {} : {})".format(*each)),
    ]
    if kind is Kind.BOOL:
        choices += [
            st.tuples(same, st.sampled_from(["&&", "||"]), same).map(" ".join),
            same.map(lambda text: f"!({text})"),
            st.sampled_from([path for path, name in NAMES.items() if name.optional]).map(lambda path: f"has({path})"),
            st.sampled_from(["'tier' in service.labels", "has(service.labels.rack)", "has(service.layers)"]),
            st.tuples(below[Kind.STRING], below[Kind.STRING]).map(lambda each: "{} in [{}]".format(*each)),
            st.tuples(below[Kind.STRING], below[Kind.STRING]).map(lambda each: "{}.contains({})".format(*each)),
            *(
                st.tuples(below[a], st.sampled_from(["<", "==", ">="]), below[b]).map(" ".join)
                for a in NUMBERS
                for b in NUMBERS
            ),
        ]
    else:
        choices += [
            st.tuples(same, st.sampled_from(["+", "-", "*", "/"]), same).map(" ".join),
            same.map(lambda text: f"-({text})"),
        ]
    return st.one_of(choices)


KPIS = st.builds(
    Kpis,
    measured_unix_ns=st.just(0),
    load=st.none() | st.floats(0, 1),
    rtt_ms=st.none() | st.floats(0, 100) | st.integers(0, 100),
    free_memory_bytes=st.none() | st.integers(0, 2**40),
)


def meaning_of(condition: str, kpis: Kpis) -> Any:
    """What the CEL package makes of the condition as it stands, over a record of nested maps."""
    record: dict[str, Any] = {"service": {"labels": dict(EDGE.capabilities.labels)}, "kpi": {}, "consumer": {}}
    for path, name in NAMES.items():
        value = name.read(EDGE, kpis, HERE)
        *parts, last = path.split(".")
        level = record
        for part in parts:
            level = level.setdefault(part, {})
        if value is not None:
            level[last] = value
    try:
        return cel.compile(condition).execute(record)
    except (ArithmeticError, KeyError) as error:
        return type(error)


@given(texts(Kind.BOOL, 2).filter(lambda text: len(text) <= LONGEST_CONDITION), KPIS)
def test_every_condition_means_here_what_it_means_in_cel(condition: str, kpis: Kpis):
    found = refusal(condition, kpis)
    meant = meaning_of(condition, kpis)
    if meant is True:
        assert found is None
    elif meant is False:
        assert found is FALSE
    else:
        assert found is not None
        assert found.missing if meant is KeyError else found.problem


WORDS = st.sampled_from([*"()[]<!-1?:.", "kpi", "load", "service", "labels", "==", "&&", "in", "'a'", "has"])


@given(st.text(max_size=60) | st.lists(WORDS).map("".join))
def test_whatever_is_sent_is_a_bool_or_a_condition_error(text: str):
    try:
        checked = check_condition(text)
    except ConditionError:
        return
    assert refusal(text) in (None, FALSE) or checked.uses
