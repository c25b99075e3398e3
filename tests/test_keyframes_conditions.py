"""Conditions that let a command fail."""

from __future__ import annotations

import pytest

from temporal_attn.keyframes.conditions import Condition, parse_condition
from temporal_attn.types import UserError
from tests.inspections import make_complete_inspection, make_inspection


@pytest.mark.parametrize("text", ["ndel<0.5", "ndel<=.25", "full>0.7", "full>=1e-1", "doubts>0"])
def test_a_condition_that_holds(text):
    assert parse_condition(text).holds(make_complete_inspection().scores())


@pytest.mark.parametrize("text", ["ndel < 0.25", "doubts>1", "violation>0"])
def test_a_condition_that_does_not_hold(text):
    assert not parse_condition(text).holds(make_complete_inspection().scores())


def test_what_was_not_measured_never_fails():
    plain = make_inspection().scores()
    assert plain["faithfulness"] is None
    assert not parse_condition("ndel<1").holds(plain)
    assert not parse_condition("split_half_tau<2").holds(make_complete_inspection().scores())


def test_a_condition_reads_as_it_was_written():
    assert str(Condition("ndel", "<", 0.5)) == "ndel<0.5"
    assert parse_condition(" ndel >= -1 ") == Condition("ndel", ">=", -1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [("ndel", "no condition"), ("ndel<x", "no condition"), ("beauty<1", "'beauty' is not measured")],
)
def test_what_is_no_condition_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_condition(text)
