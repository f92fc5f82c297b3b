"""From samples to Predictions: ask every deployment about every sample.

This is where a user's predictions come from. Each model is asked at one of its deployments (the first in the network,
with its replicas), a bounded number of requests at a time, and what it says is kept in the form it came in, with the
time that each answer took. A sample that no attempt got an answer for is a row without one, and is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer._checks import check_integer
from coinfer.errors import BadValueError, LiveError, QueueFullError, UnavailableError
from coinfer.live.running import Fleet, columns_of, labels_of
from coinfer.predictions import ModelOutput, Predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinfer.live.connector import Answer
    from coinfer.live.planning import Shape
    from coinfer.live.router import Endpoint
    from coinfer.network import Deployment, Network

__all__ = ["collect"]

_ATTEMPTS = 5


def collect(
    network: Network,
    inputs: Any,
    *,
    labels: Any = None,
    models: Sequence[str] | None = None,
    concurrency: int = 8,
    timeout_s: float = 30.0,
    progress: Callable[[int, int, str], object] | None = None,
) -> Predictions:
    """Ask every deployed model about every sample.

    Parameters
    ----------
    network : Network
        With endpoints and tensors.
    inputs : ndarray of shape (N, ...), or mapping of str to ndarray
        As for `coinfer.live.run`: a model may have its own.
    labels : array-like of shape (N,), optional
        True labels.
    models : sequence of str, optional
        Only these.
    concurrency : int
        Requests in flight per model.
    timeout_s : float
        Per request.
    progress : callable, optional
        Called as ``progress(done, total, model)``.

    Returns
    -------
    Predictions
        One row per sample, with the measured time of each answer.

    Raises
    ------
    CoinferError
        If a server cannot be reached or a tensor does not fit; nothing has been asked then.
    LiveError
        If a model gave no answer to any sample.
    """
    columns, samples = columns_of(inputs)
    truth = labels_of(labels, samples)
    check_integer(concurrency, "concurrency", at_least=1, at_most=1024)
    wanted = [d for d in network.deployments if models is None or d.model in models]
    for model in models or ():
        network.model(model)
    first: dict[str, Deployment] = {}
    for deployment in wanted:
        first.setdefault(deployment.model, deployment)
    if not first:
        msg = "no model is left to collect from; models= must name at least one that is deployed"
        raise BadValueError(msg)
    outputs = asyncio.run(_collect(network, list(first.values()), columns, samples, concurrency, timeout_s, progress))
    return Predictions(outputs, labels=truth)


async def _collect(
    network: Network,
    deployments: list[Deployment],
    columns: dict[str, NDArray[Any]],
    samples: int,
    concurrency: int,
    timeout_s: float,
    progress: Callable[[int, int, str], object] | None,
) -> dict[str, ModelOutput]:
    fleet = Fleet(network, deployments, columns, "refuse")
    try:
        shapes = await fleet.open()
        total = samples * len(deployments)
        outputs = {}
        for n, deployment in enumerate(deployments):
            endpoints = fleet.endpoints[deployment.name]
            answers: list[Answer | None] = [None] * samples
            took_us = np.zeros(samples, np.float32)
            rows = iter(range(samples))
            errors: list[LiveError] = []

            async def worker(
                rows: Any = rows,
                endpoints: list[Endpoint] = endpoints,
                answers: list[Answer | None] = answers,
                took_us: NDArray[np.float32] = took_us,
                errors: list[LiveError] = errors,
                before: int = n * samples,
                model: str = deployment.model,
            ) -> None:
                for row in rows:
                    began_s = time.monotonic()
                    answers[row] = await _ask(endpoints[row % len(endpoints)], row, timeout_s, errors)
                    took_us[row] = (time.monotonic() - began_s) * 1e6
                    if progress is not None and row % 64 == 0:
                        progress(before + row, total, model)

            await asyncio.gather(*(worker() for _ in range(concurrency)))
            if all(answer is None for answer in answers):
                raise errors[-1]
            named = network.model(deployment.model).classes
            outputs[deployment.model] = _output(answers, shapes[deployment.model], named, took_us)
        return outputs
    finally:
        await fleet.close()


async def _ask(endpoint: Endpoint, row: int, timeout_s: float, errors: list[LiveError]) -> Answer | None:
    size = endpoint.row_bytes
    assert endpoint.asking is not None
    for attempt in range(_ATTEMPTS):
        try:
            return await endpoint.connection.infer(
                endpoint.asking, endpoint.rows[row * size : (row + 1) * size], timeout_s
            )
        except (UnavailableError, QueueFullError) as error:
            errors.append(error)
            await asyncio.sleep(0.05 * 2**attempt)
        except LiveError as error:
            errors.append(error)
            return None
    return None


def _output(
    answers: list[Answer | None], shape: Shape, classes: tuple[str, ...] | None, took_us: NDArray[np.float32]
) -> ModelOutput:
    if shape.form in ("logits", "probs"):
        width = next(len(a.vector) for a in answers if a is not None and a.vector is not None)
        nothing = np.full(width, np.nan, np.float32)
        table = np.stack([nothing if a is None or a.vector is None else a.vector for a in answers])
        return ModelOutput(**{shape.form: table}, classes=classes, service_us=took_us)
    label = np.array([-1 if a is None else a.label for a in answers], np.int64)
    if shape.form == "label":
        return ModelOutput(label=label, classes=classes, service_us=took_us)
    sure = np.array([np.nan if a is None else a.confidence for a in answers], np.float32)
    return ModelOutput(label=label, confidence=sure, classes=classes, service_us=took_us)
