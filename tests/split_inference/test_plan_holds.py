"""Plans that nothing may be sent into: what the platform says last counts, in whatever order its words arrive."""

from __future__ import annotations

from mec_apps.split_inference.gateway.active_plan import PlanHolds


def test_each_word_says_all_that_is_held_and_what_is_news_is_told_once() -> None:
    holds = PlanHolds()
    assert holds.take({3: "a is not trusted"}, 1.0) == {3: "a is not trusted"}
    assert holds.take({3: "a is not trusted", 4: "b is not trusted"}, 2.0) == {4: "b is not trusted"}
    assert (holds.why(3), holds.why(5)) == ("a is not trusted", None)
    assert holds.take({}, 3.0) == {}
    assert holds.why(3) is None


def test_an_answer_to_a_report_from_before_the_last_call_counts_for_nothing() -> None:
    holds = PlanHolds()
    holds.take({3: "a is not trusted"}, 2.0)
    assert holds.take({}, 1.9) == {}
    assert holds.why(3) == "a is not trusted"
