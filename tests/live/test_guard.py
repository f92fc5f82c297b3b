"""Breaker, budget and hop estimate, on a clock that is told the time."""

import math

from coinfer.live.guard import Breaker, Budget, Hop, feasible


def test_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through():
    breaker = Breaker(failures=3, open_s=0.5, open_s_max=1.0)
    for n in range(3):
        assert breaker.allows(10.0)
        breaker.sent()
        breaker.failed(10.0)
        assert breaker.state == ("open" if n == 2 else "closed")
    assert not breaker.allows(10.49)
    assert breaker.allows(10.51)
    breaker.sent()
    assert breaker.state == "probing"
    assert not breaker.allows(10.52), "one probe, not two"
    breaker.failed(10.6)
    assert not breaker.allows(11.55), "the wait has doubled"
    assert breaker.allows(11.65)
    breaker.sent()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.opened == 1


def test_a_success_between_failures_keeps_it_closed():
    breaker = Breaker(failures=3)
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == "closed"


def test_late_failures_of_an_open_breaker_do_not_prolong_it():
    breaker = Breaker(failures=2, open_s=0.5)
    for _ in range(20):
        breaker.failed(1.0)
    assert breaker.allows(1.51)


def test_an_abandoned_probe_frees_the_breaker():
    breaker = Breaker(failures=1, open_s=0.1)
    breaker.failed(0.0)
    assert breaker.allows(0.2)
    breaker.sent()
    breaker.abandoned()
    assert breaker.allows(0.3)


def test_budget_is_a_share_with_a_floor():
    budget = Budget(share=0.2, floor=3)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    budget.active = 50
    assert sum(budget.take() for _ in range(20)) == 7, "ten of fifty, three are out"
    budget.give()
    assert budget.take()
    assert not budget.take()
    assert budget.refused == 15


def test_hop_gives_the_median_and_goes_stale():
    hop = Hop(p50_us=7.0)
    assert hop.least_us(0.0) == 0.0, "what was never measured is found out"
    for n in range(200):
        hop.add(float(n), 5.0)
    assert 120 <= hop.p50_us <= 140
    assert 180 <= hop.p95_us <= 199
    assert hop.least_us(5.5) == hop.p50_us
    assert hop.least_us(6.5) == 0.0
    assert hop.least_us(6.6) == hop.p50_us, "one finds out, not all"


def test_feasible():
    assert feasible(math.inf, 1e9)
    assert feasible(10.0, 10.0)
    assert not feasible(9.9, 10.0)
    assert not feasible(0.0, 0.0)
    assert not feasible(-1.0, 0.0)
