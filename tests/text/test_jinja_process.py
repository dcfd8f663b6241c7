"""What runs in the process of templates, met here in this one."""

import json

from minimind.text.jinja_process import answer, serve


def ask(template: str, **variables: object) -> dict[str, object]:
    [result] = answer({"template": template, "texts": [{"variables": variables, "now": None, "size": 10}]})
    return result


def test_a_text_a_refusal_and_a_break_are_told_apart() -> None:
    assert ask("{{ x }}", x=1) == {"value": "1"}
    assert ask("{{ raise_exception('in my words') }}") == {"refused": "in my words"}
    assert ask("{{ 1 / 0 }}") == {"broken": "ZeroDivisionError: division by zero"}
    assert ask("{% endif %}")["broken"].startswith("line 1: ")  # type: ignore[union-attr]


def test_a_long_text_is_cut_short_by_what_was_said() -> None:
    assert len(str(ask("{{ 'x' * 200000 }}")["value"])) == 200_000
    assert "longer than" in str(ask("{{ 'x' * 300000 }}")["broken"])


def test_requests_are_answered_a_line_each() -> None:
    lines = [
        json.dumps({"template": "{{ x }}", "texts": [{"variables": {"x": n}, "now": None, "size": 1}]}) for n in (1, 2)
    ]
    assert [json.loads(reply) for reply in serve(iter(lines))] == [[{"value": "1"}], [{"value": "2"}]]


def test_nothing_is_answered_after_memory_ran_out() -> None:
    lines = [json.dumps({"template": "{{ [0] * 10**17 }}", "texts": [{"variables": {}, "now": None, "size": 1}]})] * 2
    [reply] = serve(iter(lines))
    assert "memory" in reply
