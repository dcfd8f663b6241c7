"""A lookup finds what a question names, in either language, and never more than a few lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimind.tools.facts import FACTS, look_up


@pytest.mark.parametrize(
    ("topic", "fact"),
    [
        ("France", "France (法国): capital Paris (巴黎), continent Europe"),
        ("What is the capital of FRANCE?", "France (法国): capital Paris (巴黎), continent Europe"),
        ("法国的首都是哪里", "France (法国): capital Paris (巴黎), continent Europe"),
        ("the United States", "the United States (美国): capital Washington, D.C. (华盛顿), continent North America"),
        ("Russia", "Russia (俄罗斯): capital Moscow (莫斯科), continent Europe and Asia"),
        ("gold", "gold (金): element Au, atomic number 79"),
        ("金的原子序数", "gold (金): element Au, atomic number 79"),
        ("金星", "Venus (金星): planet 2 from the Sun"),
        ("Neptune", "Neptune (海王星): planet 8 from the Sun"),
        ("the speed of light", "speed of light (光速): 299792458 m/s"),
        ("Euler's number", "Euler's number (自然常数): 2.71828182845905"),
    ],
)
def test_a_topic_gives_its_fact(topic: str, fact: str) -> None:
    assert look_up(topic) == fact


def test_two_topics_give_two_facts_and_many_only_a_few() -> None:
    assert look_up("France or Germany, or France?").split("\n") == [FACTS["france"], FACTS["germany"]]
    assert len(look_up("铁铜银金铅").split("\n")) == 3


def test_every_fact_is_found_by_both_of_its_names() -> None:
    assert len(FACTS) == 2 * len(set(FACTS.values())) >= 150
    assert all(look_up(name) == fact for name, fact in FACTS.items())


@pytest.mark.parametrize("topic", ["", "Atlantis", "franceville", "tinned", "x" * 201])
def test_what_is_not_known_is_said(topic: str) -> None:
    with pytest.raises(ValueError, match=r"nothing is known about|at most 200 are allowed"):
        look_up(topic)


@given(st.text(max_size=300))
def test_any_topic_gives_a_short_text_or_a_reason(topic: str) -> None:
    try:
        assert len(look_up(topic)) < 500
    except ValueError as error:
        assert len(str(error)) < 300
