"""Which instruction sets there are, and choosing one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import coinfer as ci


def run(code, **environment):
    command = [sys.executable, "-c", "import numpy as np, coinfer as ci\n" + code]
    result = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout.strip(), result.stderr


def test_the_baseline_comes_first_and_the_widest_is_used():
    assert ci.cpu.implementations()[0] == "baseline"
    code, out, _ = run("print(ci.cpu.implementation())", COINFER_CPU="")
    assert (code, out) == (0, ci.cpu.implementations()[-1])


def test_use_nests_and_is_undone():
    before = ci.cpu.implementation()
    for isa in ci.cpu.implementations():
        with ci.cpu.use(isa):
            assert ci.cpu.implementation() == isa
            with ci.cpu.use("baseline"):
                assert ci.cpu.implementation() == "baseline"
            assert ci.cpu.implementation() == isa
    with pytest.raises(ZeroDivisionError), ci.cpu.use("baseline"):
        _ = 1 / 0
    assert ci.cpu.implementation() == before


def test_force_holds_until_it_is_undone():
    ci.cpu.force("baseline")
    try:
        assert ci.cpu.implementation() == "baseline"
    finally:
        ci.cpu.force("auto")


@pytest.mark.parametrize("name", ["bogus", "", "AVX2", "avx22"])
def test_an_unknown_name_is_refused(name):
    before = ci.cpu.implementation()
    with pytest.raises(ci.UnknownNameError, match="baseline"):
        ci.cpu.force(name)
    with pytest.raises(ci.UnknownNameError, match="baseline"), ci.cpu.use(name):
        pass
    assert ci.cpu.implementation() == before


@pytest.mark.parametrize("name", ci.cpu.implementations())
def test_the_environment_chooses(name):
    assert run("print(ci.cpu.implementation())", COINFER_CPU=name)[:2] == (0, name)


@pytest.mark.parametrize("call", ["ci.cpu.implementation()", "ci.score(np.zeros((2, 2)))"])
def test_an_unusable_choice_fails_on_first_use_and_never_falls_back(call):
    code, out, error = run(f"print('imported')\n{call}", COINFER_CPU="bogus")
    assert code == 1
    assert out == "imported"
    assert "UnknownNameError" in error
    assert "COINFER_CPU" in error
    assert "'bogus'" in error
    assert "baseline" in error
