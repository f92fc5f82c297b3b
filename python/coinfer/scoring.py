"""Scores: how sure an answer is, from logits or probabilities.

Every kind of score and the label come out of one pass over memory, because that pass is what scoring costs; asking
for four results is as cheap as asking for one. The bits of a row's score depend on its own values and the number of
classes alone: not on the batch, the strides, the threads or the CPU. A threshold tuned in replay therefore decides
the same live.

A row that holds a NaN is no answer: its label is -1 and its scores are NaN. ``src/coinfer/score/score.hpp`` states the
contract in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from coinfer import _core
from coinfer.errors import BadValueError, UnknownNameError, nearest
from coinfer.rule import ScoreRule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KINDS", "Scores", "score", "scores"]

KINDS: Final = ("max_prob", "margin", "entropy", "energy", "logit_margin", "gini")
"""Every kind of score; higher is surer in each."""

_score: Callable[..., NDArray[np.float32]] = _core.score.score
_scores = _core.score.scores
_ndarray = np.ndarray


class Scores(dict[Any, "NDArray[Any]"]):
    """The results of `scores` by kind: a name, or a rule.

    Attributes
    ----------
    unanswered : int
        How many rows held no answer: label -1, every score NaN.
    """

    __slots__ = ("unanswered",)
    unanswered: int


def score(
    z: Any,
    kind: str | ScoreRule = "margin",
    temperature: float = 1.0,
    input: str = "logits",
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Score every row of a table of logits or probabilities.

    Parameters
    ----------
    z : array of shape (N, C), float32 or float64
        A NumPy array, a CPU tensor, or anything else with ``__dlpack__`` or ``__array__``. Any strides; what need
        not be copied is not.
    kind : str or ScoreRule, default "margin"
        ``max_prob``, ``margin`` (p1 - p2), ``entropy`` (1 - H / ln C; 1 when C = 1), ``gini`` (the sum of p squared),
        and from logits ``energy`` (T logsumexp(z / T)) and ``logit_margin`` ((z1 - z2) / T).
        Or a score of one's own, made by `coinfer.rule.score`.
    temperature : float, default 1
        T > 0; p = softmax(z / T). Probabilities are tempered as softmax(ln p / T).
    input : {"logits", "probs"}
        What z holds. Probabilities are used as they are when the temperature is 1.
    out : array of shape (N,), float32, optional
        Where the scores go; returned.
    threads : int, default 1
        How many threads may work. Fewer do where a table is too small to gain.

    Returns
    -------
    array of shape (N,), float32
        NaN for rows that hold no answer.

    Raises
    ------
    UnknownNameError
        If kind or input is not known.
    BadValueError
        If a shape, dtype or value is not allowed.
    UnsupportedError
        If kind needs logits and z holds probabilities.

    Examples
    --------
    >>> import coinfer as ci
    >>> ci.score([[2.0, 0.0], [1.0, 1.0]], kind="logit_margin")
    array([2., 0.], dtype=float32)
    """
    return _score(z, kind, temperature, input, out, threads)  # nothing else: a small call costs half a microsecond


def _score_other(
    z: Any,
    kind: Any,
    temperature: float,
    input: str,
    out: NDArray[np.float32] | None,
    threads: int,
) -> NDArray[np.float32]:
    """Score what is not a NumPy array, or by a rule: the engine calls this."""
    if isinstance(kind, ScoreRule):
        return kind.score(z, temperature, input, out, threads)
    if not isinstance(kind, str):
        msg = f"no kind of score is called {kind!r}; {nearest(repr(kind), KINDS)}"
        raise UnknownNameError(msg)
    return _score(_table(z), kind, temperature, input, out, threads)


def scores(
    z: Any,
    kinds: Sequence[str | ScoreRule] = ("label", "max_prob", "margin", "entropy"),
    temperature: float = 1.0,
    input: str = "logits",
    out: Mapping[Any, NDArray[Any]] | None = None,
    threads: int = 1,
) -> Scores:
    """Compute several scores and the label of every row in one pass.

    Parameters
    ----------
    z : array of shape (N, C), float32 or float64
        As for `score`.
    kinds : sequence of str or ScoreRule
        Any of `KINDS` and ``label``: the lowest index of the largest entry, -1 where a row holds no answer. Also scores
        of one's own (`coinfer.rule.score`), each of which takes a pass of its own.
    temperature, input, threads
        As for `score`.
    out : mapping from each of kinds to an array of shape (N,), optional
        Where the results go: int32 for ``label``, float32 for scores.

    Returns
    -------
    Scores
        A dict from each of kinds to an array of shape (N,), with the count of rows that hold no answer as
        ``.unanswered``.

    Raises
    ------
    UnknownNameError, BadValueError, UnsupportedError
        As for `score`.

    Examples
    --------
    >>> import coinfer as ci
    >>> ci.scores([[0.75, 0.25, 0.0]], kinds=["label", "max_prob", "margin"], input="probs")
    {'label': array([0], dtype=int32), 'max_prob': array([0.75], dtype=float32), 'margin': array([0.5], dtype=float32)}
    """
    found = Scores()
    z = z if type(z) is _ndarray else _table(z)
    built_in: Any = kinds
    try:  # a small call has no time to look at every kind
        found.unanswered = _scores(z, built_in, temperature, input, out, threads, found)
    except UnknownNameError:
        if isinstance(kinds, str) or not any(isinstance(kind, ScoreRule) for kind in kinds):
            raise
    else:
        return found
    return _with_rules(z, kinds, temperature, input, out, threads)


def _with_rules(
    z: NDArray[Any],
    kinds: Sequence[str | ScoreRule],
    temperature: float,
    input: str,
    out: Mapping[Any, NDArray[Any]] | None,
    threads: int,
) -> Scores:
    if out is not None and set(out) != set(kinds):
        msg = f"out must hold an array for each of kinds and nothing else: {', '.join(map(str, kinds))}"
        raise BadValueError(msg)
    named = [kind for kind in kinds if not isinstance(kind, ScoreRule)]
    found, built_in = Scores(), Scores()
    # The label is asked for if nothing else is: somebody has to count the rows without an answer.
    into = None if out is None or not named else {kind: out[kind] for kind in named}
    found.unanswered = _scores(z, named or ["label"], temperature, input, into, threads, built_in)
    for kind in kinds:
        if isinstance(kind, ScoreRule):
            found[kind] = kind.score(z, temperature, input, None if out is None else out[kind], threads)
        else:
            found[kind] = built_in[kind]
    return found


def _table(z: Any) -> NDArray[Any]:
    """View z as a NumPy array, without a copy where it offers its memory."""
    if isinstance(z, np.ndarray):
        return np.asarray(z)
    try:
        return np.from_dlpack(z) if hasattr(z, "__dlpack__") else np.asarray(z)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        message = f"z, of type {type(z).__name__}, does not give a NumPy array: {error}"
        raise BadValueError(message) from error
