"""Rules of one's own: scores, combiners and stop rules in plain Python, compiled to C functions.

A rule is a small function. Numba compiles it, wrapped in a loop over a block of rows, to a C function that the engine
calls by address: per block of rows a call costs nothing, and the loop is compiled together with the rule. Stop rules
are compiled twice from the one function, for a block and for a single live request, so the two cannot differ.

Nothing is compiled, and Numba is not imported, before a rule is first used; then once per process. Compiled code cannot
report an error, so a function that could raise is refused, with the line that does.
"""

from __future__ import annotations

import dis
import importlib
import inspect
import linecache
import re
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self, TypeVar, overload

import numpy as np

from coinfer._core import plan as core
from coinfer._core import rule as core_rule
from coinfer.combiner import CombinerSpec
from coinfer.errors import BadValueError, UnknownNameError, UnsupportedError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CombineRule", "Rule", "ScoreRule", "StopRule", "View", "combine", "find", "score", "stop"]

R = TypeVar("R", bound="Rule")

_PER_REQUEST: Final = ("wait_us", "remaining_us", "uniform")
_STORES: Final = ("STORE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR")
_STEPS_MAX: Final = 255
_MEMBERS_UNROLLED: Final = 16
_RAISES: Final = "picklebuf"  # how Numba names the exceptions that compiled code may raise
_lock = threading.RLock()
_alive: list[Any] = []  # Compiled code is never freed: plans hold its address.


class View(NamedTuple):
    """What a stop rule sees of a request.

    Attributes
    ----------
    stage : int
        From 0; -1 before the first stage, for a rule that opens.
    score : float
        Of the running answer; NaN if there is none, or a model that gives no confidence.
    label : int
        Of the running answer. Rules that jump also see -1 (no answer) and -2 - k (an abstention by class k).
    wait_us : float
        Estimated wait ahead at the next stage.
    remaining_us : float
        Until the deadline; infinite without one.
    uniform : float
        A draw from [0, 1), one per request and stage.
    """

    stage: int
    score: float
    label: int
    wait_us: float = 0.0
    remaining_us: float = float("inf")
    uniform: float = 0.0


_VIEW: Final = np.dtype(
    [
        ("stage", "i8"),
        ("score", "f4"),
        ("label", "i4"),
        ("wait_us", "f4"),
        ("remaining_us", "f4"),
        ("uniform", "f8"),
    ],
    align=True,
)


class Rule:
    """A function that the engine calls. Calling the rule itself runs the Python function, for tests and debugging.

    Attributes
    ----------
    function : function
        What was decorated.
    name : str
    """

    what: ClassVar[str]
    arguments: ClassVar[tuple[int, ...]]
    takes: ClassVar[str]

    def __init__(self, function: Callable[..., Any]) -> None:
        if not isinstance(function, FunctionType):
            msg = f"a {self.what} must be a plain Python function, not {function!r}"
            raise BadValueError(msg)
        self.function = function
        self.__doc__ = function.__doc__
        parameters = inspect.signature(function).parameters.values()
        self._count = len(parameters)
        plain = all(p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty for p in parameters)
        if not plain or self._count not in self.arguments:
            msg = f"{self._place()}: a {self.what} takes {self.takes}, not {inspect.signature(function)}"
            raise BadValueError(msg)
        self._made: Any = None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def reference(self) -> str:
        """Where the rule is found again, as ``module:name``: what a strategy file says.

        Raises
        ------
        UnsupportedError
            If the rule is not a name of an importable module.
        """
        module = self.function.__module__
        for name, value in list(vars(sys.modules.get(module, object())).items()) if module != "__main__" else ():
            if value is self:
                return f"{module}:{name}"
        where = "the program or notebook that runs" if module == "__main__" else f"no top-level name of {module!r}"
        msg = (
            f"{self.what} {self.name!r} cannot be saved: it is defined in {where}; define it at the top level of a "
            "module that can be imported, and import it from there"
        )
        raise UnsupportedError(msg)

    def __call__(self, *arguments: Any) -> Any:
        """Run the Python function."""
        return self.function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return find, (self.reference, type(self))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{self.what} {self.name} of {self.function.__module__}>"

    def compile(self) -> Self:
        """Compile now rather than at the first use.

        Raises
        ------
        UnsupportedError
            If Numba cannot compile the function, or it could raise; the message names the line.
        """
        self._code()
        return self

    def _code(self) -> Any:
        if self._made is None:
            with _lock:
                if self._made is None:
                    self._made = self._compile()
        return self._made

    @abstractmethod
    def _compile(self) -> Any:
        """Compile to what `_code` gives."""

    def _place(self, line: int | None = None) -> str:
        return f"{self.function.__code__.co_filename}:{line or self.function.__code__.co_firstlineno}"

    def _refuse(self, line: int | None, problem: str) -> UnsupportedError:
        source = linecache.getline(self.function.__code__.co_filename, line or 0).strip()
        shown = f" (`{source}`)" if source else ""
        return UnsupportedError(f"{self.what} {self.name!r} does not compile: {self._place(line)}{shown}: {problem}")

    def _kernel(self, signature: tuple[Any, ...]) -> tuple[Any, Any]:
        """Compile the function alone, for errors in its own words; return it and the type that it gives."""
        numba = _numba()
        for line, name in _instructions(self.function):
            if name == "RAISE_VARARGS":
                raise self._refuse(line, "a rule must not raise; return a value for every input")
        kernel = numba.njit(error_model="numpy", forceinline=True, nogil=True)(self.function)
        try:
            kernel.compile(signature)
        except numba.core.errors.NumbaError as error:
            raise self._refuse(*self._blame(error)) from None
        kernel.disable_compile()
        return kernel, kernel.overloads[signature].signature.return_type

    def _blame(self, error: Exception) -> tuple[int | None, str]:
        """Find the line of the function that Numba complains of, and its complaint without the trimmings."""
        code = self.function.__code__
        lines = [line for _, _, line in code.co_lines() if line is not None]
        found = [int(number) for number in re.findall(r"\((\d+)\)", str(error))]
        at = getattr(getattr(error, "loc", None), "line", None)
        within = [line for line in (at, *found) if line is not None and code.co_firstlineno <= line <= max(lines)]
        said = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()]
        said = [line for line in said if line and not line.startswith("Failed in")]
        stop = next((i for i, line in enumerate(said) if line.startswith(("File ", "During:", "There are"))), len(said))
        told = " ".join(said[: max(stop, 1)])[:400]
        if "readonly" in told:
            told = "a rule may not write into what it is given, but for the last argument of a combine rule"
        return (within[0] if within else None), told

    def _address(self, signature: Any, wrapper: Callable[..., Any]) -> int:
        """Compile what the engine calls, and refuse what could raise."""
        made = _numba().cfunc(signature, error_model="numpy")(wrapper)
        if _RAISES in made.inspect_llvm():
            raise self._refuse(
                None,
                "something in it could raise: it makes an array (a rule must not allocate memory), or calls a helper "
                "that raises, or that divides (compile helpers by numba.njit(error_model='numpy'))",
            )
        _alive.append(made)
        return int(made.address)


class ScoreRule(Rule):
    """A score of one's own; made by `score`."""

    what = "score rule"
    arguments = (2,)
    takes = "(vector, label)"

    def __init__(self, function: Callable[..., Any], input: str = "probs") -> None:
        if input not in ("probs", "logits"):
            msg = f"no input is called {input!r}; {nearest(str(input), ('probs', 'logits'))}"
            raise UnknownNameError(msg)
        super().__init__(function)
        self.input = input

    @property
    def engine(self) -> core_rule.Score:
        """What the engine calls."""
        made: core_rule.Score = self._code()
        return made

    def lacks(self, form: str) -> str | None:
        """Say what a model of that form does not give; None if nothing."""
        if form == "logits" or (form == "probs" and self.input == "probs"):
            return None
        gives = {"label": "gives labels only", "probs": "gives probabilities"}.get(form, "gives label and confidence")
        return f"{gives}, but score {self.name!r} needs {'logits' if self.input == 'logits' else 'a vector'}"

    def score(
        self, z: NDArray[Any], temperature: float, input: str, out: NDArray[np.float32] | None, threads: int
    ) -> NDArray[np.float32]:
        """Score every row: what `coinfer.score` does with ``kind=`` this rule."""
        from coinfer._arrays import as_vectors
        from coinfer._checks import check_integer, check_number

        if input not in ("logits", "probs"):
            msg = f"no input is called {input!r}; {nearest(str(input), ('logits', 'probs'))}"
            raise UnknownNameError(msg)
        problem = self.lacks(input)
        if problem:
            msg = f"{self.name} needs logits, but input is {input!r}"
            raise UnsupportedError(msg)
        temperature = check_number(temperature, "temperature", at_least=1e-30, at_most=1e30)
        threads = check_integer(threads, "threads", at_least=1, at_most=4096)
        table = core.Outputs(input, as_vectors(z, "z"))
        scores = core_rule.score(self.engine, table, temperature, threads)
        if out is None:
            return scores
        if not isinstance(out, np.ndarray) or out.shape != scores.shape or out.dtype != np.float32:
            msg = f"out must be an array of shape {scores.shape} and dtype float32"
            raise BadValueError(msg)
        out[...] = scores
        return out

    def _compile(self) -> core_rule.Score:
        numba = _numba()
        carray, types = numba.carray, numba.types

        vector = types.Array(types.float32, 1, "C", readonly=True)
        kernel, gives = self._kernel((vector, types.int32))
        if not isinstance(gives, types.Integer | types.Float | types.Boolean):
            raise self._refuse(None, f"a score rule returns a number, but this one returns {gives}")
        nan = np.float32(np.nan)

        def block(rows, classes, vectors, labels, scores):  # type: ignore[no-untyped-def]
            table = carray(vectors, (rows, classes))
            label = carray(labels, rows)
            out = carray(scores, rows)
            for row in range(rows):
                out[row] = kernel(table[row], label[row]) if label[row] >= 0 else nan

        floats = types.CPointer(types.float32)
        signature = types.void(types.int64, types.int64, floats, types.CPointer(types.int32), floats)
        return core_rule.Score(self._address(signature, block), self.input == "logits")


class CombineRule(Rule, CombinerSpec):
    """A combiner of one's own; made by `combine`."""

    what = "combine rule"
    arguments = (2, 3)
    takes = "(probs, out) or (probs, weights, out)"

    @property
    def needs(self) -> Any:
        """Which answers it can read."""
        return "vectors"

    @property
    def key(self) -> Hashable:
        """The rule itself."""
        return self

    def addresses(self, members: int) -> tuple[int, int]:
        """Compile for any number of members, and for just so many: loops over a known number are unrolled."""
        general, known = self._code()
        if members not in known:
            with _lock:
                if members not in known:
                    known[members] = self._compile_for(members) if members <= _MEMBERS_UNROLLED else general
        return general, known[members]

    def build(self, classes: int, members: Sequence[str], score: str) -> core.Combiner:
        """Make the engine's combiner."""
        return core_rule.combiner(*self.addresses(len(members)), len(members), classes, score)

    def _compile(self) -> tuple[int, dict[int, int]]:
        return self._compile_for(None), {}

    def _compile_for(self, count: int | None) -> int:
        numba = _numba()
        carray, types = numba.carray, numba.types

        probs = types.Array(types.float32, 2, "C", readonly=True)
        weight = types.Array(types.float32, 1, "C", readonly=True)
        row = types.Array(types.float32, 1, "C")
        weighted, fixed = self._count == 3, count is not None
        kernel, gives = self._kernel((probs, weight, row) if weighted else (probs, row))
        if gives is not types.none:
            problem = f"a combine rule writes into its last argument and returns nothing, but this one returns {gives}"
            raise self._refuse(None, problem)
        if fixed:
            # Inlined before it is compiled, where the number of members is known: loops over them unroll, and those
            # over classes become vectors (3.7 times as fast as the same function compiled alone and inlined after).
            kernel = numba.njit(inline="always", error_model="numpy")(self.function)
        known = count or 0
        most = np.uint32(0x7F7FFFFF)  # As integers, floats >= 0 are in order, and only they are at most the largest.

        # Numba drops the branches that its constants `weighted` and `fixed` rule out.
        def block(rows, members, classes, tables, strides, weights, bits, scratch, out, rare):  # type: ignore[no-untyped-def]
            here = known if fixed else members
            said, copy = carray(scratch, (here, classes)), carray(bits, (here, classes))
            weight = carray(weights, here)
            made = carray(out, (rows, classes))
            for row in range(rows):
                largest = np.uint32(0)
                for m in range(here):
                    table, first = tables[m], row * strides[m]
                    for k in range(classes):
                        p = table[first + k]
                        copy[m, k] = p
                        largest = max(largest, p)
                rare[row] = largest > most
                if weighted:
                    kernel(said, weight, made[row])
                else:
                    kernel(said, made[row])

        floats, words, count64 = types.CPointer(types.float32), types.CPointer(types.uint32), types.int64
        signature = types.void(
            *[count64] * 3,
            types.CPointer(words),
            types.CPointer(count64),
            floats,
            words,
            floats,
            floats,
            types.CPointer(types.uint8),
        )
        return self._address(signature, block)


class StopRule(Rule):
    """A stop rule of one's own; made by `stop`."""

    what = "stop rule"
    first_only = False
    arguments = (1, 2)
    takes = "(view) or, with state=, (view, state)"

    def __init__(
        self, function: Callable[..., Any], state: Any = None, *, jumps: bool = False, opens: bool = False
    ) -> None:
        super().__init__(function)
        if (self._count == 2) != (state is not None):
            missing = "it takes a state, but state= gives none" if state is None else "it takes no state"
            msg = f"{self._place()}: stop rule {self.name!r} takes (view) or, with state=, (view, state): {missing}"
            raise BadValueError(msg)
        self.state = state
        self.jumps, self.opens = jumps, opens
        self._record = None if state is None else self.initial(0)
        self._shared: dict[object, tuple[int, int]] = {}

    def using(self, state: Any) -> StopRule:
        """Give the same rule, compiled once, with another initial state."""
        other = StopRule(self.function, state, jumps=self.jumps, opens=self.opens)
        other._shared = self._shared
        return other

    def initial(self, seed: int) -> NDArray[Any]:
        """Make the state of a run: a record of shape ()."""
        made = np.asarray(self.state(seed) if callable(self.state) else self.state)
        if made.dtype.names is None or made.size != 1:
            msg = (
                f"stop rule {self.name!r}: state must be one NumPy record, or a function of the seed that makes one, "
                f"not {self.state!r}"
            )
            raise BadValueError(msg)
        return made.reshape(()).copy()

    @property
    def per_request(self) -> bool:
        """Whether a decision depends on more than stage, label and score: on queues, time, draws, or earlier requests.

        Taken from the names that the function, and what it calls, mention, and from whether one with a state writes.
        """
        names, writes = set[str](), False
        for _, name in _instructions(self.function):
            names.add(name)
            writes |= name in _STORES
        return bool(names & set(_PER_REQUEST)) or (self.state is not None and writes)

    def key(self, seed: int) -> Hashable:
        """Equal keys give equal decisions."""
        return (self, seed) if callable(self.state) else self

    def build(self, seed: int) -> core_rule.Stop:
        """Make the engine's rule, with the state of a run of that seed."""
        advance, block = self._code()
        state = b"" if self._record is None else self.initial(seed).tobytes()
        return core_rule.Stop(advance, block, state, self.jumps, self.opens, self.per_request)

    def say(self, label: int, score: float, steps: int) -> str:
        """Put a decision in words."""
        gap = "" if label >= 0 else "no answer, " if label == -1 else "abstains, "
        return f"{gap}{self.name}: {'settles' if steps == 0 else 'goes on' if steps == 1 else f'skips {steps - 1}'}"

    def _compile(self) -> tuple[int, int]:
        dtype = None if self._record is None else self._record.dtype
        if dtype not in self._shared:
            self._shared[dtype] = self._compile_for(dtype)
        return self._shared[dtype]

    def _compile_for(self, dtype: np.dtype[Any] | None) -> tuple[int, int]:
        numba = _numba()
        carray, from_dtype, njit, types = numba.carray, numba.from_dtype, numba.njit, numba.types
        make_view: Any = View

        fields = [types.int64, types.float32, types.int32, types.float32, types.float32, types.float64]
        state_type = None if dtype is None else from_dtype(dtype)
        seen = types.NamedTuple(fields, View)
        kernel, gives = self._kernel((seen,) if state_type is None else (seen, state_type))
        if not isinstance(gives, types.Integer | types.Boolean):
            problem = (
                f"a stop rule returns whether to stop, or how many stages to advance, but this one returns {gives}"
            )
            raise self._refuse(None, problem)
        boolean, jumps = isinstance(gives, types.Boolean), self.jumps
        if boolean and jumps:
            raise self._refuse(None, "a rule that jumps returns how many stages to advance, but this one returns bool")
        most = _STEPS_MAX
        never, endless = np.float32(0), np.float32(np.inf)
        pointer = types.voidptr if state_type is None else types.CPointer(state_type)

        # The two forms of the kernel differ in their arguments only; Numba drops the branch not taken.
        if state_type is None:

            @njit(error_model="numpy", forceinline=True)
            def steps(view, state):  # type: ignore[no-untyped-def]
                made = kernel(view)
                return (0 if made else 1) if boolean else min(max(np.int64(made), 0), most)

            @njit(forceinline=True)
            def of(state):  # type: ignore[no-untyped-def]
                return 0
        else:

            @njit(error_model="numpy", forceinline=True)
            def steps(view, state):  # type: ignore[no-untyped-def]
                made = kernel(view, state)
                return (0 if made else 1) if boolean else min(max(np.int64(made), 0), most)

            @njit(forceinline=True)
            def of(state):  # type: ignore[no-untyped-def]
                return carray(state, 1)[0]

        def advance(state, pointed):  # type: ignore[no-untyped-def]
            view = carray(pointed, 1)[0]
            asked = make_view(view.stage, view.score, view.label, view.wait_us, view.remaining_us, view.uniform)
            return np.int32(steps(asked, of(state)))

        def block(state, stage, rows, gaps, labels, scores, go):  # type: ignore[no-untyped-def]
            record = of(state)
            label, score, out = carray(labels, rows), carray(scores, rows), carray(go, rows)
            if gaps:
                for row in range(rows):
                    known = np.int32(max(label[row], 0))
                    on = steps(make_view(stage, score[row], known, never, endless, 0.0), record) > 0
                    out[row] = on | (label[row] < 0)
            else:
                for row in range(rows):
                    out[row] = steps(make_view(stage, score[row], label[row], never, endless, 0.0), record) > 0

        one = self._address(types.int32(pointer, types.CPointer(from_dtype(_VIEW))), advance)
        many = types.void(
            pointer,
            types.int64,
            types.int64,
            types.int64,
            types.CPointer(types.int32),
            types.CPointer(types.float32),
            types.CPointer(types.uint8),
        )
        return one, 0 if self.per_request or jumps or self.opens else self._address(many, block)


@overload
def score(function: Callable[..., Any], /) -> ScoreRule: ...
@overload
def score(*, input: str = "probs") -> Callable[[Callable[..., Any]], ScoreRule]: ...
def score(function: Callable[..., Any] | None = None, /, *, input: str = "probs") -> Any:
    """Make a score of a function of one answer.

    The function takes ``(vector, label)``: float32 of shape (C,), in the model's own classes, and the index of its
    largest entry. It returns a number, the higher the surer, and may not write into the vector. Rows without an answer
    are not asked: their score is NaN.

    Parameters
    ----------
    input : {"probs", "logits"}
        What the vector holds: probabilities, computed from logits where a model gives those, or logits.

    Examples
    --------
    >>> import coinfer as ci
    >>> @ci.rule.score
    ... def odds(p, label):
    ...     return p[label] / (1 - p[label])
    >>> ci.score([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]], kind=odds, input="probs")
    array([1., 3.], dtype=float32)
    """
    return ScoreRule(function) if function is not None else lambda given: ScoreRule(given, input)


def combine(function: Callable[..., Any], /) -> CombineRule:
    """Make a combiner of a function of the answers to one request.

    The function takes ``(probs, out)`` or ``(probs, weights, out)``: float32 of shape (M, C), one row per model that
    answered, in the order of the plan; their weights, of shape (M,); and what it writes: float32 of shape (C,), one
    number >= 0 per class. The largest is the answer (the lowest of equals), read as a probability its score.

    Examples
    --------
    >>> import coinfer as ci
    >>> @ci.rule.combine
    ... def boldest(probs, out):
    ...     for k in range(probs.shape[1]):
    ...         out[k] = 0
    ...         for m in range(probs.shape[0]):
    ...             out[k] = max(out[k], probs[m, k])
    >>> both = ci.combine([[[0.5, 0.5]], [[0.25, 0.75]]], how=boldest)
    >>> both.label, both.confidence
    (array([1], dtype=int32), array([0.75], dtype=float32))
    """
    return CombineRule(function)


@overload
def stop(function: Callable[..., Any], /) -> StopRule: ...
@overload
def stop(
    *, state: Any = None, jumps: bool = False, opens: bool = False
) -> Callable[[Callable[..., Any]], StopRule]: ...
def stop(
    function: Callable[..., Any] | None = None, /, *, state: Any = None, jumps: bool = False, opens: bool = False
) -> Any:
    """Make a stop rule of a function of what is known about one request.

    The function takes ``(view)``, a `View`, or ``(view, state)``. It returns a bool, whether to stop, or an integer, by
    how many stages to advance (0 stops). It is never asked at the last stage, and about requests without an answer only
    if it jumps.

    Parameters
    ----------
    state : NumPy record, or function of the seed that makes one, optional
        The rule's own, made anew for each run. A rule that writes into it sees requests in arrival order.
    jumps : bool
        It may advance by more than one stage.
    opens : bool
        It also chooses the first stage: asked with ``view.stage`` -1, it returns 1 for the first, 2 for the second, ...

    Examples
    --------
    >>> import coinfer as ci
    >>> @ci.rule.stop
    ... def careful(view):
    ...     return view.score >= (0.9 if view.label == 0 else 0.6)
    >>> ci.Forward("confidence", stop=careful).name
    'Forward(confidence, careful)'
    """
    if function is not None:
        return StopRule(function)
    return lambda given: StopRule(given, state, jumps=jumps, opens=opens)


def find(reference: str, kind: type[R]) -> R:
    """Import the rule that a strategy file names as ``module:name``.

    Importing a module runs it: open strategy files that name rules only if you trust them.

    Raises
    ------
    UnknownNameError
        If there is no such module, or no rule of that kind and name in it.
    """
    module, _, name = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError) as error:
        msg = f"{kind.what} {reference!r}: module {module!r} cannot be imported: {error}"
        raise UnknownNameError(msg) from error
    if not isinstance(found, kind):
        known = [key for key, value in vars(sys.modules[module]).items() if isinstance(value, kind)]
        msg = f"{kind.what} {reference!r}: module {module!r} has no {kind.what} {name!r}; {nearest(name, known)}"
        raise UnknownNameError(msg)
    return found


def _instructions(function: Any, seen: set[int] | None = None) -> Iterator[tuple[int | None, str]]:
    """Walk line and word (operation, or name mentioned) through a function and the functions that it can call."""
    seen = set() if seen is None else seen
    code: CodeType | None = getattr(getattr(function, "py_func", function), "__code__", None)
    if code is None or id(code) in seen:
        return
    seen.add(id(code))
    function = getattr(function, "py_func", function)
    known = dict(function.__globals__) | {
        name: cell.cell_contents
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
        if _filled(cell)
    }
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno if instruction.positions else None
        yield line, instruction.opname
        if isinstance(instruction.argval, str):
            yield line, instruction.argval
            called = known.get(instruction.argval)
            if isinstance(called, FunctionType) or hasattr(called, "py_func"):
                yield from _instructions(called, seen)


def _numba() -> Any:
    """Import Numba, half a second, when the first rule is compiled."""
    return importlib.import_module("numba")


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
