"""Combining ten models against scikit-learn and DESlib: labels equal on all rows, then the time.

``table_combine.py`` prints time and memory side by side; tie rules are all the same, the lowest of equal labels.
"""

from __future__ import annotations

import numpy as np
import pytest

from combining_peers import CONTESTANTS, Inputs, prepared


@pytest.fixture(scope="module")
def inputs(request):
    return Inputs(4_000 if request.config.getoption("benchmark_disable") else 1_000_000)


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_combine_ten_models(benchmark, request, inputs, contestant):
    group = contestant.partition("/")[0]
    benchmark.group = f"{group}, 10 models, 10 classes"
    if contestant == "vote/DESlib" and not request.config.getoption("benchmark_disable"):
        pytest.skip("takes minutes: see table_combine.py")
    slow = "coinfer" not in contestant
    label = benchmark.pedantic(prepared(contestant, inputs), rounds=1 if slow else 5, warmup_rounds=0 if slow else 1)
    np.testing.assert_array_equal(label, prepared(f"{group}/coinfer", inputs)())
