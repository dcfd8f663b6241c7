"""Figures are told in the format that Prometheus reads."""

import re
from dataclasses import dataclass, field

from minimind.generation.counters import Counters
from minimind.serve.metrics import render_metrics


@dataclass
class Measured:
    counters: Counters = field(default_factory=Counters)
    num_waiting: int = 3
    num_running: int = 2


def test_every_line_is_a_comment_or_a_sample_and_buckets_add_up() -> None:
    engine = Measured()
    for seconds in (0.001, 0.004, 0.004, 7.0):
        engine.counters.note_step(seconds, 10)
    engine.counters.note_prompt(20, 5)
    engine.counters.note_end("stop")
    text = render_metrics({'a "quoted"\\name\n': engine, "b": Measured()})
    sample = re.compile(r'minimind_[a-z_]+\{model="(\\.|[^"\\\n])*"(,[a-z]+="[^"]*")?\} [0-9.e-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in text.splitlines())
    mine = [line.rpartition(" ")[2] for line in text.splitlines() if "_bucket" in line and "quoted" in line]
    assert mine == ["1", "3", "3", "3", "3", "3", "3", "3", "3", "4"]
    assert 'minimind_requests_total{model="a \\"quoted\\"\\\\name\\n",reason="stop"} 1' in text
    assert 'minimind_computed_tokens_total{model="b"} 0' in text
