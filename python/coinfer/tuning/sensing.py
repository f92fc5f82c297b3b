"""Sensitivity: how the answer moves if link delays or prices are not what one believes, because they are guesses.

Each is changed by some factors, the others held. For each change two things are said: what the strategy that was tuned
for the believed network gives on the changed one, and what tuning for the changed one would give instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from coinfer._checks import check_number
from coinfer.errors import UnknownNameError, nearest
from coinfer.network import Link
from coinfer.tuning.tuned import Tuned, evaluate, tune

if TYPE_CHECKING:
    import pyarrow as pa

    from coinfer.network import Network
    from coinfer.predictions import Predictions
    from coinfer.strategy.base import Strategy

__all__ = ["Sensitivity", "sensitivity"]

_WHAT = ("delays", "prices")


@dataclass(frozen=True)
class Sensitivity:
    """What tuning found, and what becomes of it.

    Attributes
    ----------
    tuned : Tuned
        For the network as it was given.
    table : pyarrow.Table
        One row per (`what`, `factor`): for every quantity its value if the tuned strategy is `kept`, and the value if
        it is tuned again (`again`); `meets` and `meets_again` say whether all constraints hold, `same` whether tuning
        again changes the strategy.
    """

    tuned: Tuned
    table: pa.Table

    def __str__(self) -> str:
        name = self.tuned.minimise
        lines = [f"{self.tuned.strategy.name}, {name} {self.tuned.chosen[name]:.6g}"]
        for row in self.table.to_pylist():
            kept = f"{row[f'{name}_kept']:.6g}" + ("" if row["meets"] else " (bounds missed)")
            again = f"{row[f'{name}_again']:.6g}" + ("" if row["meets_again"] else " (bounds missed)")
            same = "the same strategy" if row["same"] else row["strategy_again"]
            lines.append(f"  {row['what']} x {row['factor']:g}: kept {kept}, tuned again {again}: {same}")
        return "\n".join(lines)

    def figure(self) -> Any:
        """Draw the objective against the factor, kept and tuned again, as a Plotly figure."""
        import plotly.graph_objects as go

        name = self.tuned.minimise
        drawn = go.Figure()
        for what in dict.fromkeys(self.table["what"].to_pylist()):
            rows = [row for row in self.table.to_pylist() if row["what"] == what]
            x = [row["factor"] for row in rows]
            for how, dash in (("kept", "dot"), ("again", "solid")):
                label = f"{what}, {'kept' if how == 'kept' else 'tuned again'}"
                y = [row[f"{name}_{how}"] for row in rows]
                drawn.add_scatter(x=x, y=y, mode="lines+markers", name=label, line={"dash": dash})
        drawn.update_layout(xaxis_title="factor", yaxis_title=name, xaxis_type="log", template="plotly_white")
        return drawn


def sensitivity(
    strategy: Strategy,
    predictions: Predictions,
    network: Network,
    *,
    what: Iterable[str] = _WHAT,
    factors: Sequence[float] = (0.5, 1.0, 2.0),
    **options: Any,
) -> Sensitivity:
    """Tune for a network, and see how the answer moves if its link delays or prices change.

    Parameters
    ----------
    strategy, predictions, network
        As for `coinfer.tune`.
    what : iterable of {"delays", "prices"}
        Delay and jitter of all links; prices of all links and deployments.
    factors : sequence of float
        What they are multiplied by, > 0.
    **options
        As for `coinfer.tune`.

    Returns
    -------
    Sensitivity
        Print it, or show its `figure()`.

    Examples
    --------
    >>> import coinfer as ci
    >>> preds = ci.Predictions(
    ...     {"small": ci.ModelOutput(label=[0, 1, 1, 0], confidence=[0.9, 0.4, 0.8, 0.3]),
    ...      "large": ci.ModelOutput(label=[0, 0, 1, 1], confidence=[0.9, 0.9, 0.9, 0.9])}, labels=[0, 0, 1, 1])
    >>> net = ci.Network.chain({"device": "small", "cloud": "large"}, price_usd=[0, 1e-4], delay_ms=[10])
    >>> found = ci.sensitivity(ci.Forward("confidence"), preds, net, subject_to=["accuracy >= 1"], split=None)
    >>> print(found)
    Forward(confidence, 0.6), price_usd 5e-05
      delays x 0.5: kept 5e-05, tuned again 5e-05: the same strategy
      delays x 1: kept 5e-05, tuned again 5e-05: the same strategy
      delays x 2: kept 5e-05, tuned again 5e-05: the same strategy
      prices x 0.5: kept 2.5e-05, tuned again 2.5e-05: the same strategy
      prices x 1: kept 5e-05, tuned again 5e-05: the same strategy
      prices x 2: kept 0.0001, tuned again 0.0001: the same strategy
    """
    import pyarrow as pa

    changes = (what,) if isinstance(what, str) else tuple(what)
    for each in changes:
        if each not in _WHAT:
            msg = f"unknown change {each!r}; {nearest(str(each), _WHAT)}"
            raise UnknownNameError(msg)
    scales = [check_number(factor, "a factor", above=0.0) for factor in factors]
    tuned = tune(strategy, predictions, network, **options)
    rows = []
    for each in changes:
        for factor in scales:
            changed = _changed(network, each, factor)
            again = tune(strategy, predictions, changed, **options)
            kept = evaluate(tuned, predictions, changed, **options)
            row: dict[str, Any] = {"what": each, "factor": factor}
            for name in kept:
                row |= {f"{name}_kept": kept[name], f"{name}_again": float(again.chosen[name])}
            row["meets"] = all(c.beyond(kept[c.quantity]) <= 0 for c in tuned.subject_to)  # type: ignore[arg-type]
            row["meets_again"] = again.feasible
            row["same"] = again.strategy == tuned.strategy
            row["strategy_again"] = again.strategy.name
            rows.append(row)
    return Sensitivity(tuned, pa.Table.from_pylist(rows))


def _changed(network: Network, what: str, factor: float) -> Network:
    delays, prices = (factor, 1.0) if what == "delays" else (1.0, factor)
    links = []
    for link in network.links:
        ends: dict[str, Any] = {"from_": link.a, "to": link.b} if link.directed else {"between": link.between}
        links.append(
            Link(
                **ends,
                delay_ms=link.delay_ms * delays,
                jitter_ms=link.jitter_ms * delays,
                bandwidth_mbps=link.bandwidth_mbps,
                price_usd_per_mb=link.price_usd_per_mb * prices,
            )
        )
    stations = [replace(d, price_usd=d.price_usd * prices) for d in network.deployments]
    return replace(network, links=tuple(links), deployments=tuple(stations))
