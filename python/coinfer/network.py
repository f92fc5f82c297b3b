"""The network: nodes in tiers, the links between them, models, and their deployments.

Everything is a frozen object that checks itself, so that a `Network` in hand is a valid one and the engine
below never checks again. A network is written as TOML and read back as the same object; what TOML says about
a key (unknown, missing, out of range) is said with the file, the line of the table, and the nearest valid
key.

Models are declared once and deployed many times. Declaring them is optional: a network that declares no model
gets one, with default sizes, for every model that its deployments name; a network that declares some must
declare all, so that a misspelt deployment cannot create a model nobody meant.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from coinfer import service as laws
from coinfer._checks import (
    MILLISECONDS_MAX,
    check_integer,
    check_keys,
    check_list,
    check_mapping,
    check_name,
    check_number,
    check_unique,
)
from coinfer._files import reading, replacing, suffix_of
from coinfer.errors import BadValueError, CoinferError, UnknownNameError, nearest
from coinfer.outage import Outage
from coinfer.service import Constant, Law

if TYPE_CHECKING:
    from os import PathLike

    from coinfer.paths import Routes

__all__ = ["Deployment", "Link", "Model", "Network", "Node", "Tensors"]

_CONTROLS = ("path", "ingress")
_INSTANCES_MAX = 2**20
_VECTORS = ("logits", "probs")
_FORMS = (*_VECTORS, "label_confidence", "label")
_SCHEMES = ("grpc", "grpcs", "http", "https")


@dataclass(frozen=True, slots=True)
class Node:
    """A place that computes or that requests enter: a device, an edge server, a data centre.

    Parameters
    ----------
    name : str
        Unique in the network; without ``@``, which separates model and node in the name of a deployment.
    tier : int
        Distance from the user in levels, 0 nearest; paths go from lower to higher tiers.
    triton : str or sequence of str, optional
        Where the Triton server of this node answers, for live runs: ``grpc://host:port`` (or ``host:port``),
        ``grpcs://``, ``http://`` or ``https://``. Several are replicas of each other.
    token_env : str, optional
        Environment variable that holds the token sent as ``authorization: Bearer ...``; secrets stand in no file.
    tls : mapping of str to str, optional
        Files in PEM: `ca` (who signed the server's certificate), `cert` and `key` (the client's own).
    ingress : bool, optional
        Whether requests enter here. By default the nodes of the lowest tier are ingress nodes.

    Raises
    ------
    BadValueError
        If a value is not allowed; the message names it.
    """

    name: str
    tier: int
    triton: str | tuple[str, ...] | None = field(default=None, kw_only=True)
    token_env: str | None = field(default=None, kw_only=True)
    tls: Mapping[str, str] | None = field(default=None, kw_only=True)
    ingress: bool | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name, "node name", forbidden="@"))
        place = f"node {self.name!r}"
        object.__setattr__(self, "tier", check_integer(self.tier, f"{place}: tier", at_most=1000))
        if self.triton is not None:
            given = (
                [self.triton] if isinstance(self.triton, str) else check_list(self.triton, f"{place}: triton", "URLs")
            )
            urls = tuple(_check_url(url, f"{place}: triton") for url in given)
            if not urls:
                msg = f"{place}: triton must name at least one URL such as grpc://127.0.0.1:8001"
                raise BadValueError(msg)
            check_unique(urls, f"{place}: triton")
            object.__setattr__(self, "triton", urls[0] if isinstance(self.triton, str) else urls)
        if self.token_env is not None:
            check_name(self.token_env, f"{place}: token_env", forbidden="= ")
        if self.tls is not None:
            with _at(place):
                check_keys(
                    check_mapping(self.tls, "tls", "of ca, cert, key to a file"), ("ca", "cert", "key"), (), "tls"
                )
            for key, file in self.tls.items():
                check_name(file, f"{place}: tls: {key}")
            if ("cert" in self.tls) != ("key" in self.tls):
                msg = f"{place}: tls: cert and key go together"
                raise BadValueError(msg)
            object.__setattr__(self, "tls", dict(self.tls))
        for key in ("token_env", "tls"):
            if getattr(self, key) is not None and self.triton is None:
                msg = f'{place}: {key} says how to talk to a Triton server, but no triton = "grpc://..." names one'
                raise BadValueError(msg)
        if type(self.ingress) not in (bool, type(None)):
            msg = f"{place}: ingress must be true or false, not {self.ingress!r}"
            raise BadValueError(msg)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The replicas of this node's Triton server, each as ``scheme://host:port``; empty if there is none."""
        if self.triton is None:
            return ()
        urls = (self.triton,) if isinstance(self.triton, str) else self.triton
        return tuple(url if "://" in url else f"grpc://{url}" for url in urls)


def _check_url(url: object, what: str) -> str:
    name = check_name(url, what)
    scheme, separator, rest = name.partition("://")
    if not separator:
        scheme, rest = "grpc", name
    if scheme not in _SCHEMES:
        msg = f"{what}: there is no scheme {scheme!r}; {nearest(scheme, _SCHEMES)}"
        raise UnknownNameError(msg)
    host, separator, port = rest.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in rest:
        msg = f"{what} must be {scheme}://host:port, not {name!r}"
        raise BadValueError(msg)
    return name


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Link:
    """A connection between two nodes, in both directions unless built with `from_` and `to`.

    Parameters
    ----------
    between : (str, str), optional
        The two nodes of a link that works both ways.
    from_, to : str, optional
        The two nodes of a link that works one way only (keys ``from`` and ``to`` in a file).
    delay_ms : float
        One-way propagation delay, >= 0.
    jitter_ms : float, default 0
        Scale of the random part of the delay, >= 0.
    bandwidth_mbps : float, optional
        Megabits per second in each direction, > 0. Without it, transmission takes no time.
    price_usd_per_mb : float, default 0
        Price of each megabyte (10^6 bytes) sent, >= 0.
    directed : bool, default False
        Whether `between` is (from, to).

    Attributes
    ----------
    a, b : str
        The two nodes; requests go from a to b if `directed`.

    Raises
    ------
    BadValueError
        If a value is not allowed, or the link leads from a node to itself.
    """

    between: tuple[str, str]
    delay_ms: float
    jitter_ms: float
    bandwidth_mbps: float | None
    price_usd_per_mb: float
    directed: bool

    def __init__(
        self,
        between: tuple[str, str] | Sequence[str] | None = None,
        *,
        from_: str | None = None,
        to: str | None = None,
        delay_ms: float,
        jitter_ms: float = 0.0,
        bandwidth_mbps: float | None = None,
        price_usd_per_mb: float = 0.0,
        directed: bool = False,
    ) -> None:
        if (between is None) == (from_ is None and to is None) or (from_ is None) != (to is None):
            msg = "link: give its ends either as between = [a, b] or as from = a and to = b"
            raise BadValueError(msg)
        ends = [from_, to] if between is None else check_list(between, "link: between", "two node names")
        if len(ends) != 2:
            msg = f"link: between must be two node names, not {ends!r}"
            raise BadValueError(msg)
        a, b = (check_name(end, "link: node name", forbidden="@") for end in ends)
        directed = bool(directed) or between is None
        place = f"link {a!r} {'->' if directed else '--'} {b!r}"
        if a == b:
            msg = f"{place}: a link must join two different nodes"
            raise BadValueError(msg)
        if bandwidth_mbps is not None:
            bandwidth_mbps = check_number(bandwidth_mbps, f"{place}: bandwidth_mbps", above=0.0)
        values = {
            "between": (a, b),
            "delay_ms": check_number(delay_ms, f"{place}: delay_ms", at_most=MILLISECONDS_MAX),
            "jitter_ms": check_number(jitter_ms, f"{place}: jitter_ms", at_most=MILLISECONDS_MAX),
            "bandwidth_mbps": bandwidth_mbps,
            "price_usd_per_mb": check_number(price_usd_per_mb, f"{place}: price_usd_per_mb"),
            "directed": directed,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def a(self) -> str:
        """First end; the origin if the link is directed."""
        return self.between[0]

    @property
    def b(self) -> str:
        """Second end; the destination if the link is directed."""
        return self.between[1]

    def __repr__(self) -> str:
        ends = f"from_={self.a!r}, to={self.b!r}" if self.directed else f"({self.a!r}, {self.b!r})"
        rest = "".join(f", {key}={value!r}" for key, value in _set_values(self) if key != "between")
        return f"Link({ends}{rest})"


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the network sees it: what it takes in and gives out.

    Parameters
    ----------
    name : str
        The name that deployments, strategies and Predictions use.
    classes : sequence of str, optional
        Class names, unique, in the order of the model's outputs.
    request_kb, answer_kb : float, default 0
        Size of one request and one answer, kilobytes (10^3 bytes), >= 0.
    abstain : sequence of int or str, default ()
        Labels that mean "I don't know"; names need `classes`, here or in the Predictions.
    """

    name: str
    classes: tuple[str, ...] | None = None
    request_kb: float = 0.0
    answer_kb: float = 0.0
    abstain: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name, "model name"))
        place = f"model {self.name!r}"
        if self.classes is not None:
            names = [
                check_name(c, f"{place}: class name") for c in check_list(self.classes, f"{place}: classes", "names")
            ]
            if not names:
                msg = f"{place}: classes must name at least one class"
                raise BadValueError(msg)
            check_unique(names, f"{place}: class")
            object.__setattr__(self, "classes", tuple(names))
        for key in ("request_kb", "answer_kb"):
            object.__setattr__(self, key, check_number(getattr(self, key), f"{place}: {key}"))
        labels = check_list(self.abstain, f"{place}: abstain", "labels")
        object.__setattr__(self, "abstain", tuple(self._abstained(label, place) for label in labels))

    def _abstained(self, label: int | str, place: str) -> int | str:
        if isinstance(label, str):
            if self.classes is not None and label not in self.classes:
                msg = f"{place}: abstain: there is no class {label!r}; {nearest(label, self.classes)}"
                raise UnknownNameError(msg)
            return label
        at_most = len(self.classes) - 1 if self.classes is not None else 2**31 - 1
        return check_integer(label, f"{place}: label in abstain", at_most=at_most)


@dataclass(frozen=True, slots=True)
class Tensors:
    """Names of a deployment's tensors on its Triton server, and what the output holds.

    Parameters
    ----------
    input : str
        Tensor name.
    output : str or mapping of str to str
        The tensor with the vector, or with the label for the two label forms. For vectors that come as a dictionary of
        named outputs, the tensor of each class, one number each: ``{cat: "P_CAT", dog: "P_DOG"}``; the model then has
        these classes, in this order.
    form : {"logits", "probs", "label_confidence", "label"}
        What the output means.
    confidence : str, optional
        The tensor with the confidence; required for, and only allowed with, ``label_confidence``.
    model, version : str, optional
        Name and version of the model on its server. Default: the deployment's model, and whatever version the server
        chooses.
    """

    input: str
    output: str | Mapping[str, str] = field(hash=False)
    form: str
    confidence: str | None = None
    model: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        check_name(self.input, "tensors: input")
        if isinstance(self.output, Mapping):
            if not self.output:
                msg = "tensors: output must name a tensor, or one for each class, not none"
                raise BadValueError(msg)
            object.__setattr__(self, "output", dict(self.output))
        for name in self.outputs:
            check_name(name, "tensors: output")
        check_unique(self.outputs, "tensors: output")
        if self.form not in _FORMS:
            msg = f"tensors: there is no form {self.form!r}; {nearest(str(self.form), _FORMS)}"
            raise UnknownNameError(msg)
        if (self.confidence is not None) != (self.form == "label_confidence"):
            msg = f"tensors: confidence names a tensor if and only if form is 'label_confidence', here {self.form!r}"
            raise BadValueError(msg)
        if self.confidence is not None:
            check_name(self.confidence, "tensors: confidence")
        for key in ("model", "version"):
            if getattr(self, key) is not None:
                check_name(getattr(self, key), f"tensors: {key}", forbidden="/")
        if self.classes is not None and self.form not in _VECTORS:
            msg = f"tensors: outputs named by class are for form 'logits' or 'probs', not {self.form!r}"
            raise BadValueError(msg)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that make up the answer: `output`, or one per class."""
        return tuple(self.output.values()) if isinstance(self.output, Mapping) else (self.output,)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names where the outputs are named by class."""
        return tuple(self.output) if isinstance(self.output, Mapping) else None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model at a node: a station with k instances, a batcher in front, a price and a service-time law.

    Parameters
    ----------
    model, node : str
        What runs where.
    instances : int, optional
        Batches served at the same time; 1 where the network queues and nothing is said.
    max_batch : int, default 1
        Requests in one batch at most.
    preferred_batch : sequence of int, default ()
        Batch sizes that are sent without waiting, each in [1, `max_batch`]; kept sorted.
    batch_delay_us : float, default 0
        How long the oldest queued request may wait for a fuller batch.
    queue_max : int, optional
        Requests waiting at most; one more is rejected. Unbounded by default.
    price_usd : float, default 0
        Price of one request.
    service : Law, default Constant(0)
        Service time of a batch, see `coinfer.service`.
    tensors : Tensors or mapping, optional
        How a live run talks to it: ``{input, output, form}``.

    Attributes
    ----------
    name : str
        ``"model@node"``.
    service_ms_mean : float
        Mean service time of a batch of one, milliseconds.

    Raises
    ------
    BadValueError
        If a value is not allowed; the message names the deployment and the value.
    """

    model: str
    node: str
    instances: int | None = field(default=None, kw_only=True)
    max_batch: int = field(default=1, kw_only=True)
    preferred_batch: tuple[int, ...] = field(default=(), kw_only=True)
    batch_delay_us: float = field(default=0.0, kw_only=True)
    queue_max: int | None = field(default=None, kw_only=True)
    price_usd: float = field(default=0.0, kw_only=True)
    service: Law = field(default=Constant(0.0), kw_only=True)
    tensors: Tensors | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_name(self.model, "deployment: model")
        check_name(self.node, "deployment: node", forbidden="@")
        place = f"deployment {self.name!r}"
        if self.instances is not None:
            instances = check_integer(self.instances, f"{place}: instances", at_least=1, at_most=_INSTANCES_MAX)
            object.__setattr__(self, "instances", instances)
        object.__setattr__(self, "max_batch", check_integer(self.max_batch, f"{place}: max_batch", at_least=1))
        sizes = (
            check_integer(size, f"{place}: preferred_batch", at_least=1, at_most=self.max_batch)
            for size in check_list(self.preferred_batch, f"{place}: preferred_batch", "batch sizes")
        )
        object.__setattr__(self, "preferred_batch", tuple(sorted(set(sizes))))
        if self.queue_max is not None:
            object.__setattr__(self, "queue_max", check_integer(self.queue_max, f"{place}: queue_max"))
        for key in ("batch_delay_us", "price_usd"):
            object.__setattr__(self, key, check_number(getattr(self, key), f"{place}: {key}"))
        self._check_service(self.service, place)
        object.__setattr__(self, "tensors", _tensors(self.tensors, place))

    def _check_service(self, service: object, place: str) -> None:
        if not isinstance(service, Law):
            msg = f"{place}: service must be a law such as coinfer.service.Constant(2.0), not {service!r}"
            raise BadValueError(msg)
        if isinstance(service, laws.Measured) and self.max_batch > 1:
            msg = f"{place}: service law 'measured' needs max_batch = 1, not {self.max_batch}"
            raise BadValueError(msg)
        if isinstance(service, laws.Table) and self.max_batch > service.batch[-1]:
            msg = (
                f"{place}: service law 'table' was measured up to batches of {service.batch[-1]}, but max_batch is "
                f"{self.max_batch}"
            )
            raise BadValueError(msg)

    @property
    def name(self) -> str:
        """``"model@node"``, unique in a network."""
        return f"{self.model}@{self.node}"

    @property
    def queues(self) -> bool:
        """Whether anything is said about how requests wait: instances, batches or the length of the queue."""
        return self.instances is not None or self.max_batch > 1 or self.batch_delay_us > 0 or self.queue_max is not None

    @property
    def service_ms_mean(self) -> float:
        """Mean service time of a batch of one, milliseconds (NaN for the law `Measured`)."""
        return self.service.mean_ms


def _tensors(value: object, place: str) -> Tensors | None:
    if value is None or isinstance(value, Tensors):
        return value
    if not isinstance(value, Mapping):
        msg = f"{place}: tensors must be a table {{input, output, form}}, not {value!r}"
        raise BadValueError(msg)
    with _at(place):
        check_keys(value, _keys(Tensors), ("input", "output", "form"), "tensors")
        return Tensors(**value)


@dataclass(frozen=True, repr=False)
class Network:
    """Nodes, links, models and deployments that fit together.

    Parameters
    ----------
    nodes : sequence of Node
        At least one, names unique.
    links : sequence of Link
        Between known nodes, at most one per pair of nodes and direction.
    models : sequence of Model
        Either none, then every deployed model gets a default `Model`, or all that are deployed.
    deployments : sequence of Deployment
        At least one; at most one of each model at each node.
    control : {"path", "ingress"}, default "path"
        Who decides: each node on the way with the request at hand, or the ingress, which consults every
        deployment itself.
    queues : bool, optional
        Whether requests wait for each other, at deployments and at links with a bandwidth. By default they do if
        some deployment says how: `instances`, `max_batch`, `batch_delay_us` or `queue_max`.
    outages : sequence of Outage
        When something is down or slow, in a replay; see `Outage`.

    Attributes
    ----------
    ingress : tuple of str
        Nodes where requests enter: those of the lowest tier, unless a node says otherwise.
    tiers : tuple of int
        The tiers that have nodes, ascending.

    Raises
    ------
    UnknownNameError
        If a link or deployment names a node or model that does not exist; the message names the nearest one.
    BadValueError
        If a name occurs twice or something required is missing.

    Examples
    --------
    >>> network = Network.chain({"device": "small", "cloud": "large"}, delay_ms=[10], service_ms=[2, 20])
    >>> network.ingress
    ('device',)
    >>> network.deployment("large@cloud").service
    Constant(mean_ms=20.0)
    """

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    models: tuple[Model, ...]
    deployments: tuple[Deployment, ...]
    control: str = field(default="path", kw_only=True)
    queues: bool | None = field(default=None, kw_only=True)
    outages: tuple[Outage, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        parts = {"nodes": Node, "links": Link, "models": Model, "deployments": Deployment, "outages": Outage}
        for key, kind in parts.items():
            object.__setattr__(self, key, _all_of(getattr(self, key), kind, key))
        if self.control not in _CONTROLS:
            msg = f"network: control must be 'path' or 'ingress', not {self.control!r}"
            raise BadValueError(msg)
        if type(self.queues) not in (bool, type(None)):
            msg = f"network: queues must be true or false, not {self.queues!r}"
            raise BadValueError(msg)
        if not self.nodes:
            msg = "network: there must be at least one node"
            raise BadValueError(msg)
        if not self.deployments:
            msg = "network: there must be at least one deployment"
            raise BadValueError(msg)
        if not self.models:
            implied = dict.fromkeys(deployment.model for deployment in self.deployments)
            object.__setattr__(self, "models", tuple(Model(name) for name in implied))
        check_unique((node.name for node in self.nodes), "network: node")
        check_unique((model.name for model in self.models), "network: model")
        check_unique((deployment.name for deployment in self.deployments), "network: deployment")
        self._check_links()
        self._check_deployments()
        self._name_classes()
        for outage in self.outages:
            outage.check(self)
        if not self.ingress:
            msg = "network: no node is an ingress; leave out ingress = false for at least one node of the lowest tier"
            raise BadValueError(msg)

    def _check_links(self) -> None:
        seen: set[tuple[str, str]] = set()
        for link in self.links:
            for end in link.between:
                if end not in self._node_index:
                    arrow = "->" if link.directed else "--"
                    msg = (
                        f"link {link.a!r} {arrow} {link.b!r}: there is no node {end!r}; "
                        f"{nearest(end, self._node_index)}"
                    )
                    raise UnknownNameError(msg)
            ways = [link.between] if link.directed else [link.between, (link.b, link.a)]
            if not seen.isdisjoint(ways):
                msg = f"link {link.a!r} -- {link.b!r}: there is already a link between these nodes in this direction"
                raise BadValueError(msg)
            seen.update(ways)

    def _check_deployments(self) -> None:
        for deployment in self.deployments:
            place = f"deployment {deployment.name!r}"
            if deployment.node not in self._node_index:
                msg = f"{place}: there is no node {deployment.node!r}; {nearest(deployment.node, self._node_index)}"
                raise UnknownNameError(msg)
            if deployment.model not in self._model_index:
                msg = (
                    f"{place}: there is no model {deployment.model!r}; "
                    f"{nearest(deployment.model, self._model_index)} "
                    "(declare all models or none)"
                )
                raise UnknownNameError(msg)

    def _name_classes(self) -> None:
        """Give a model the classes by which a deployment of it names its outputs."""
        models = list(self.models)
        for deployment in self.deployments:
            named = None if deployment.tensors is None else deployment.tensors.classes
            index = self._model_index[deployment.model]
            if named is None or named == models[index].classes:
                continue
            if models[index].classes is not None:
                msg = (
                    f"deployment {deployment.name!r}: outputs are named for the classes {', '.join(named)}, but the "
                    f"model has {', '.join(models[index].classes or ())}, in this order"
                )
                raise BadValueError(msg)
            models[index] = replace(models[index], classes=named)
        object.__setattr__(self, "models", tuple(models))

    @cached_property
    def _node_index(self) -> dict[str, int]:
        return {node.name: index for index, node in enumerate(self.nodes)}

    @cached_property
    def _model_index(self) -> dict[str, int]:
        return {model.name: index for index, model in enumerate(self.models)}

    @cached_property
    def _deployment_index(self) -> dict[str, int]:
        return {deployment.name: index for index, deployment in enumerate(self.deployments)}

    @cached_property
    def _deployments_at(self) -> dict[str, tuple[Deployment, ...]]:
        at: dict[str, list[Deployment]] = {node.name: [] for node in self.nodes}
        for deployment in self.deployments:
            at[deployment.node].append(deployment)
        return {name: tuple(there) for name, there in at.items()}

    @cached_property
    def tiers(self) -> tuple[int, ...]:
        """The tiers that have nodes, ascending."""
        return tuple(sorted({node.tier for node in self.nodes}))

    @cached_property
    def ingress(self) -> tuple[str, ...]:
        """Names of the nodes where requests enter, in the order of `nodes`."""
        lowest = self.tiers[0]
        return tuple(n.name for n in self.nodes if (n.tier == lowest if n.ingress is None else n.ingress))

    @cached_property
    def queueing(self) -> bool:
        """Whether requests wait for each other: as `queues` says, else if some deployment says how."""
        return any(d.queues for d in self.deployments) if self.queues is None else self.queues

    @cached_property
    def routes(self) -> Routes:
        """Shortest routes between the nodes, computed as they are asked for."""
        from coinfer.paths import Routes

        return Routes(self)

    def node(self, name: str) -> Node:
        """Return the node of that name, or raise `UnknownNameError` with the nearest one."""
        return self.nodes[self.node_index(name)]

    def model(self, name: str) -> Model:
        """Return the model of that name, or raise `UnknownNameError` with the nearest one."""
        return self.models[_find(self._model_index, name, "model")]

    def deployment(self, name: str) -> Deployment:
        """Return the deployment ``"model@node"``, or raise `UnknownNameError` with the nearest one."""
        return self.deployments[self.deployment_index(name)]

    def deployments_at(self, node: str) -> tuple[Deployment, ...]:
        """Return the deployments at a node, or raise `UnknownNameError` with the nearest one."""
        return self._deployments_at[self.node(node).name]

    def node_index(self, name: str) -> int:
        """Return the position of a node in `nodes`."""
        return _find(self._node_index, name, "node")

    def deployment_index(self, name: str) -> int:
        """Return the position of a deployment in `deployments`."""
        return _find(self._deployment_index, name, "deployment")

    def with_outages(self, outages: Iterable[Outage]) -> Network:
        """Return the same network with more outages."""
        more = _all_of(outages, Outage, "outages")
        return replace(self, outages=(*self.outages, *more)) if more else self

    @classmethod
    def chain(
        cls,
        tiers: Mapping[str, str],
        *,
        delay_ms: float | Sequence[float] = 0.0,
        price_usd: float | Sequence[float] = 0.0,
        service_ms: float | Law | Sequence[float | Law] = 0.0,
        instances: int | Sequence[int | None] | None = None,
        request_kb: float = 0.0,
        answer_kb: float = 0.0,
        control: str = "path",
    ) -> Network:
        """Build the usual chain: one node per tier, one model per node, links between neighbours.

        Parameters
        ----------
        tiers : mapping of str to str
            Node to model, from the ingress upward.
        delay_ms : float or sequence of float
            One-way delays of the links; one fewer than tiers.
        price_usd, service_ms, instances : number or sequence
            Per deployment; a service time is milliseconds or a `Law`. One number goes for all. Requests wait for
            each other only if instances are given.
        request_kb, answer_kb : float, default 0
            Sizes, the same for all models.
        control : {"path", "ingress"}, default "path"
            Who decides.

        Returns
        -------
        Network
            Tiers are numbered from 0.

        Raises
        ------
        BadValueError
            If a sequence has the wrong length or a value is not allowed.

        Examples
        --------
        >>> Network.chain({"device": "small", "edge": "medium", "cloud": "large"}, delay_ms=[10, 40])
        Network(3 nodes in 3 tiers, 2 links, 3 models, 3 deployments, control='path')
        """
        tiers = check_mapping(tiers, "chain: tiers", "node to its model")
        count = len(tiers)
        delays = _one_each(delay_ms, count - 1, "delay_ms", "link")
        prices = _one_each(price_usd, count, "price_usd", "deployment")
        services = _one_each(service_ms, count, "service_ms", "deployment")
        counts = _one_each(instances, count, "instances", "deployment")
        names = list(tiers)
        return cls(
            nodes=tuple(Node(name, tier) for tier, name in enumerate(names)),
            links=tuple(Link((names[i], names[i + 1]), delay_ms=delays[i]) for i in range(count - 1)),
            models=tuple(
                Model(model, request_kb=request_kb, answer_kb=answer_kb) for model in dict.fromkeys(tiers.values())
            ),
            deployments=tuple(
                Deployment(
                    tiers[name],
                    name,
                    price_usd=prices[i],
                    instances=counts[i],
                    service=services[i] if isinstance(services[i], Law) else Constant(services[i]),
                )
                for i, name in enumerate(names)
            ),
            control=control,
        )

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Network:
        """Read a network file (TOML, see ``docs/formats.md``).

        Raises
        ------
        BadFileError
            If the file is missing or is not TOML.
        UnknownNameError, BadValueError
            As for the constructor; the message starts with the file, the line and the table.
        """
        path = Path(path)
        with reading(path, "a network file (TOML)"):
            text = path.read_text(encoding="utf-8")
            return _from_document(tomllib.loads(text), text, str(path))

    def save(self, path: str | PathLike[str]) -> None:
        """Write a network file that `open` reads back as an equal network. Defaults are left out."""
        import tomlkit  # 40 ms that only writers pay

        path = Path(path)
        suffix_of(path, (".toml",))
        text = tomlkit.dumps(_to_document(self))
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def __repr__(self) -> str:
        def count(items: Sequence[object], word: str) -> str:
            return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"

        return (
            f"Network({count(self.nodes, 'node')} in {count(self.tiers, 'tier')}, "
            f"{count(self.links, 'link')}, "
            f"{count(self.models, 'model')}, {count(self.deployments, 'deployment')}, "
            f"control={self.control!r})"
        )


_T = TypeVar("_T")


def _all_of(items: Iterable[_T], kind: type[_T], what: str) -> tuple[_T, ...]:
    given = check_list(items, f"network: {what}", kind.__name__)
    for index, item in enumerate(given):
        if not isinstance(item, kind):
            msg = f"network: {what}[{index}] must be a {kind.__name__}, not {item!r}"
            raise BadValueError(msg)
    return tuple(given)


def _find(index: Mapping[str, int], name: str, what: str) -> int:
    if name not in index:
        msg = f"the network has no {what} {name!r}; {nearest(name, index)}"
        raise UnknownNameError(msg)
    return index[name]


def _one_each(value: Any, count: int, what: str, unit: str) -> list[Any]:
    """Return `count` values: the sequence itself if its length is right, or one value for all."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * count
    values = list(value)
    if len(values) != count:
        msg = f"chain: {what} must have one value per {unit}, {count} in all, not {len(values)}"
        raise BadValueError(msg)
    return values


def _keys(kind: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


# ---- the file ----------------------------------------------------------------------------------------------

_LINK_KEYS = ("between", "from", "to", "delay_ms", "jitter_ms", "bandwidth_mbps", "price_usd_per_mb")
_TABLES: dict[str, tuple[type[Any], tuple[str, ...], tuple[str, ...]]] = {
    "node": (Node, _keys(Node), ("name", "tier")),
    "link": (Link, _LINK_KEYS, ("delay_ms",)),
    "model": (Model, _keys(Model), ("name",)),
    "deployment": (Deployment, _keys(Deployment), ("model", "node")),
    "outage": (Outage, _keys(Outage), ("from_ms", "to_ms")),
}


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Put the place in front of what is raised inside."""
    try:
        yield
    except CoinferError as error:
        msg = f"{place}: {error}"
        raise type(error)(msg) from None


def _from_document(document: Mapping[str, Any], text: str, file: str) -> Network:
    check_keys(document, ("control", "queues", *_TABLES), (), file)
    parts: dict[str, list[Any]] = {}
    for name, (kind, allowed, required) in _TABLES.items():
        tables = document.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            msg = f"{file}: {name} must be an array of tables, written [[{name}]]"
            raise BadValueError(msg)
        lines = _header_lines(text, name, len(tables))
        parts[name] = []
        for index, table in enumerate(tables):
            where = f"{file}{lines[index]}: [[{name}]] {index + 1}{_title(name, table)}"
            check_keys(table, allowed, required, where)
            arguments = {"from_" if key == "from" else key: value for key, value in table.items()}
            if "service" in table:
                arguments["service"] = laws.parse(table["service"], f"{where}: service")
            with _at(where):
                parts[name].append(kind(**arguments))
    with _at(file):
        return Network(
            nodes=tuple(parts["node"]),
            links=tuple(parts["link"]),
            models=tuple(parts["model"]),
            deployments=tuple(parts["deployment"]),
            control=document.get("control", "path"),
            queues=document.get("queues"),
            outages=tuple(parts["outage"]),
        )


def _header_lines(text: str, name: str, count: int) -> list[str]:
    """Return ``", line N"`` of each ``[[name]]`` header, or empty strings if they cannot be told apart."""
    pattern = re.compile(rf"^[ \t]*\[\[[ \t]*{name}[ \t]*\]\]", re.MULTILINE)
    lines, line, position = [], 1, 0
    for match in pattern.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        lines.append(f", line {line}")
    return lines if len(lines) == count else [""] * count


def _title(name: str, table: Mapping[str, Any]) -> str:
    if name == "deployment" and "model" in table and "node" in table:
        return f" ({table['model']}@{table['node']})"
    if name == "outage":
        return ""
    if name == "link":
        ends = table.get("between") or [table.get("from", "?"), table.get("to", "?")]
        return f" ({', '.join(map(str, ends))})" if isinstance(ends, list) else ""
    return f" ({table['name']})" if "name" in table else ""


def _set_values(item: Any) -> list[tuple[str, Any]]:
    """Return the fields of a configuration object that differ from their defaults."""
    defaults = {"jitter_ms": 0.0, "bandwidth_mbps": None, "price_usd_per_mb": 0.0, "directed": False}
    values = []
    for f in fields(item):
        default = defaults.get(f.name) if isinstance(item, Link) else f.default
        value = getattr(item, f.name)
        if f.name == "directed" or (value == default and f.name not in ("delay_ms", "between")):
            continue
        values.append((f.name, value))
    return values


def _to_document(network: Network) -> Any:
    import tomlkit

    document = tomlkit.document()
    document.add("control", tomlkit.item(network.control))
    if network.queues is not None:
        document.add("queues", tomlkit.item(network.queues))
    groups: dict[str, Sequence[Any]] = {
        "node": network.nodes,
        "link": network.links,
        "model": network.models,
        "deployment": network.deployments,
        "outage": network.outages,
    }
    for name, items in groups.items():
        if not items:
            continue
        tables = tomlkit.aot()
        for item in items:
            table = tomlkit.table()
            for key, value in _set_values(item):
                if key == "between" and item.directed:
                    table.add("from", item.a)
                    table.add("to", item.b)
                elif isinstance(value, Law | Tensors):
                    inline = tomlkit.inline_table()
                    pairs = value.to_dict().items() if isinstance(value, Law) else _set_values(value)
                    inline.update(dict(pairs))
                    table.add(key, inline)
                elif isinstance(value, Mapping):
                    inline = tomlkit.inline_table()
                    inline.update(dict(value))
                    table.add(key, inline)
                else:
                    table.add(key, list(value) if isinstance(value, tuple) else value)
            tables.append(table)
        document.add(name, tables)
    return document
