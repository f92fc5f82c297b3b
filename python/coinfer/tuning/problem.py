"""A tuning problem as a file: which strategy, what to minimise, under which bounds, and how sure one wants to be.

::

    predictions = "predictions.parquet"      # beside this file
    network = "network.toml"
    trace = "trace.parquet"                  # optional: replay candidates on it, with queues
    minimise = "price_usd"
    subject_to = ["accuracy_loss[large] <= 0.005", "latency_us_p99 <= 80000"]
    confidence = 0.95
    split = [0.4, 0.4, 0.2]                  # to choose on, to certify on, to measure on
    seed = 0

    [strategy]
    kind = "forward"
    score = "margin"
    thresholds = "each"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinfer._checks import check_keys
from coinfer.errors import BadFileError, BadValueError
from coinfer.strategy import Forward, Strategy

if TYPE_CHECKING:
    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.tuning.tuned import Tuned

__all__ = ["Problem"]

_OPTIONS = ("minimise", "subject_to", "confidence", "split", "seed", "ingress", "rate_rps", "procedure", "threads")
_FILES = ("predictions", "network", "trace")


@dataclass(frozen=True)
class Problem:
    """What a problem file says; `solve` does it.

    Attributes
    ----------
    strategy : Strategy
    options : dict
        Keyword arguments of `coinfer.tune`.
    predictions, network, trace : Path or None
        Where the file says they are.
    """

    strategy: Strategy = field(default_factory=Forward)
    options: dict[str, Any] = field(default_factory=dict)
    predictions: Path | None = None
    network: Path | None = None
    trace: Path | None = None

    @classmethod
    def open(cls, path: str | Path) -> Problem:
        """Read a problem file.

        Raises
        ------
        CoinferError
            If it cannot be read, or a key or value is not allowed; the message names the file.
        """
        path = Path(path)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{path}: cannot be read as a problem file: {error}"
            raise BadFileError(msg) from error
        except tomllib.TOMLDecodeError as error:
            msg = f"{path}: is not valid TOML: {error}"
            raise BadFileError(msg) from error
        check_keys(table, (*_OPTIONS, "strategy", *_FILES), (), str(path))
        said = table.get("strategy", {"kind": "forward"})
        if isinstance(said, str):
            from coinfer._specs import parse

            _, strategy = parse(said)
        elif isinstance(said, dict):
            strategy = Strategy.parse(said, where=f"{path}: [strategy]")
        else:
            msg = f"{path}: strategy must be a table [strategy], or text such as 'forward:margin:each', not {said!r}"
            raise BadValueError(msg)
        files = {key: path.parent / table[key] for key in _FILES if isinstance(table.get(key), str)}
        return cls(strategy, {key: table[key] for key in _OPTIONS if key in table}, **files)

    def solve(self, predictions: Predictions, network: Network, **changes: Any) -> Tuned:
        """Tune as the problem says; `changes` take the place of what it says."""
        from coinfer.trace import Trace
        from coinfer.tuning.tuned import tune

        if self.trace is not None and "trace" not in changes:
            changes["trace"] = Trace.open(self.trace)
        return tune(self.strategy, predictions, network, **{**self.options, **changes})
