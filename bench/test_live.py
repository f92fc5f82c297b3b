"""The overhead of the live router as a check of its results; `python bench/live_overhead.py` measures it."""

import pytest


@pytest.mark.live
def test_router_and_bare_client_get_the_same_answers(benchmark):
    from live_servers import require_triton

    require_triton()
    from live_overhead import compare

    small = {"requests": 200, "rounds": 1} if benchmark.disabled else {}
    found = benchmark.pedantic(compare, kwargs=small, rounds=1)
    benchmark.extra_info |= found
    assert found["router"]["rps"] > 0
