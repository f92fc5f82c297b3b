from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import coinfer as ci
from coinfer import arrivals

AZURE = Path(__file__).parents[3] / "shared/data/azure_llm2023_conv.npz"


def counts(times_ns, step_s):
    return np.bincount((times_ns // int(step_s * 1e9)).astype(np.int64))


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, seed: arrivals.poisson(200.0, n, seed=seed),
        lambda n, seed: arrivals.mmpp([100.0, 700.0], [1.0, 0.2], n, seed=seed),
        lambda n, seed: arrivals.profile([100.0, 300.0, 0.0, 400.0], 0.5, n, seed=seed),
        lambda n, seed: arrivals.diurnal(200.0, 1.8, n, period_s=4.0, seed=seed),
    ],
    ids=["poisson", "mmpp", "profile", "diurnal"],
)
def test_every_process_has_its_mean_rate_and_one_result_per_seed(draw):
    times = draw(100_000, 3)
    assert times.dtype == np.int64
    assert len(times) == 100_000
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert len(times) / (times[-1] / 1e9) == pytest.approx(200.0, rel=0.06)
    assert np.array_equal(times, draw(100_000, 3))
    assert not np.array_equal(times, draw(100_000, 4))
    assert np.array_equal(draw(50, 3), times[:50])
    assert len(draw(0, 3)) == 0


def test_poisson_has_exponential_gaps():
    gaps = np.diff(arrivals.poisson(1000.0, 200_000, seed=1)) / 1e6
    assert gaps.mean() == pytest.approx(1.0, rel=0.01)
    assert np.quantile(gaps, 0.9) == pytest.approx(np.log(10), rel=0.02)
    found = arrivals.burstiness(arrivals.poisson(1000.0, 200_000, seed=1))
    assert (found.rate_rps, found.cv, found.dispersion) == pytest.approx((1000.0, 1.0, 1.0), rel=0.06)


def test_mmpp_counts_are_as_dispersed_as_theory_says():
    # Two states, rates a and b, leaving rates r and s: the index of dispersion of counts tends to
    # 1 + 2 r s (a - b)^2 / ((r + s)^2 (a s + b r)).  (Fischer and Meier-Hellstern 1993)
    a, b, r, s = 50.0, 450.0, 4.0, 8.0
    times = arrivals.mmpp([a, b], [1 / r, 1 / s], 2_000_000, seed=5)
    windows = counts(times, 20.0)[:-1]  # 20 s are many spells of a quarter and an eighth of a second
    limit = 1 + 2 * r * s * (a - b) ** 2 / ((r + s) ** 2 * (a * s + b * r))
    settled = 1 - (1 - np.exp(-(r + s) * 20.0)) / ((r + s) * 20.0)
    assert windows.var() / windows.mean() == pytest.approx(1 + (limit - 1) * settled, rel=0.12)


def test_profile_puts_requests_where_the_rate_is():
    times = arrivals.profile([100.0, 0.0, 300.0], 2.0, 50_000, seed=2)
    phase = (times / 1e9) % 6.0
    shares = np.histogram(phase, [0, 2, 4, 6])[0] / len(times)
    assert shares == pytest.approx([0.25, 0.0, 0.75], abs=0.01)
    assert shares[1] == 0


def test_diurnal_follows_its_sine():
    times = arrivals.diurnal(1000.0, 2.0, 400_000, period_s=10.0, seed=2)
    seen = np.histogram((times / 1e9) % 10.0, 20)[0] / len(times)
    edges = np.linspace(0, 1, 21)
    expected = np.diff(edges - np.sin(2 * np.pi * edges) / (2 * np.pi))
    assert seen == pytest.approx(expected, abs=0.002)


def test_scaling_keeps_every_ratio_of_gaps():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(1.0, 500) * rng.choice([0.1, 3.0], 500))
    fast = arrivals.scaled(times, rate_rps=800.0, unit="s")
    assert fast[0] == 0
    assert 499 / (fast[-1] / 1e9) == pytest.approx(800.0, rel=1e-6)
    assert np.diff(fast) / np.diff(fast).sum() == pytest.approx(np.diff(times) / np.diff(times).sum(), abs=1e-8)
    twice = arrivals.scaled(times, factor=2.0, requests=1200, unit="s")
    assert np.abs(np.diff(twice)[:499] - np.diff(twice)[500:999]).max() <= 1  # nanosecond
    assert len(twice) == 1200
    assert (np.diff(twice) > 0).all()


@pytest.mark.skipif(not AZURE.exists(), reason="shared/data/azure_llm2023_conv.npz is absent")
def test_azure_keeps_its_burstiness_at_any_rate():
    with np.load(AZURE) as data:
        times = data["t"]
    before = arrivals.burstiness(times, "s")
    after = arrivals.burstiness(arrivals.scaled(times, rate_rps=500.0, unit="s"))
    assert before.cv == pytest.approx(1.09, abs=0.01)
    assert after.rate_rps == pytest.approx(500.0, rel=1e-4)
    assert (after.cv, after.dispersion) == pytest.approx((before.cv, before.dispersion), rel=1e-3)
    trace = ci.Trace.from_arrivals(
        arrivals.scaled(times, rate_rps=500.0, unit="s"), samples=10, ingress="edge", unit="ns"
    )
    assert trace.rate_rps == pytest.approx(500.0, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: arrivals.poisson(0.0, 5), "rate_rps"),
        (lambda: arrivals.poisson(1e-9, 10**6), "longer than int64"),
        (lambda: arrivals.poisson(1.0, -1), "requests"),
        (lambda: arrivals.mmpp([1.0], [1.0], 5), "at least two states"),
        (lambda: arrivals.mmpp([1.0, 2.0], [1.0], 5), "at least two states"),
        (lambda: arrivals.mmpp([0.0, 0.0], [1.0, 1.0], 5), "not all rates 0"),
        (lambda: arrivals.mmpp([1.0, 2.0], [1.0, 0.0], 5), "dwell_s"),
        (lambda: arrivals.profile([0.0], 1.0, 5), "at least one rate"),
        (lambda: arrivals.profile([1.0, -1.0], 1.0, 5), "rate_rps"),
        (lambda: arrivals.diurnal(5.0, 2.5, 5), "peak_to_mean"),
        (lambda: arrivals.scaled([1.0], factor=2), "at least two"),
        (lambda: arrivals.scaled([1.0, 2.0]), "either rate_rps= or factor="),
        (lambda: arrivals.scaled([1.0, 2.0], factor=-1), "factor"),
        (lambda: arrivals.burstiness([1.0, 2.0]), "at least three"),
    ],
)
def test_what_cannot_arrive_is_refused(call, words):
    with pytest.raises(ci.BadValueError, match=words):
        call()


def test_a_day_of_azure_functions_is_a_rate_per_minute(tmp_path):
    file = tmp_path / "day.csv"
    file.write_text("HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,a,f,http,0,5,2\no,a,g,timer,1,0,40\n")
    counts = arrivals.per_minute(file)
    assert counts.tolist() == [1, 5, 42]
    times = arrivals.profile(counts / 60.0, 60.0, 480)
    assert np.bincount(times // 60_000_000_000 % 3).tolist() == pytest.approx([10, 50, 420], rel=0.4)
    file.write_text("app,func,end_timestamp,duration\na,f,5.0,1.0\n")
    with pytest.raises(ci.CoinferError, match="not those of Azure Functions 2019"):
        arrivals.per_minute(file)
