"""A delivery network for a first run: four phones, two site servers, a regional data centre and a cloud.

The network is a file, `demo_network.toml`, so that what a reader copies and edits is exactly what the demo
runs. Its service times, delays and prices are stated rather than measured: the demo then gives the same
numbers on every machine. The comments in the file say what makes each of them plausible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coinfer.network import Network

__all__ = ["demo_network"]


def demo_network() -> Network:
    """Return the network of ``coinfer demo``: phones, sites, a region and a cloud, one model each.

    Returns
    -------
    Network
        Eight nodes in four tiers. The models are those of `coinfer.datasets.digits`: ``tree`` on the phones,
        ``logistic`` at the sites, ``mlp`` in the region, ``ensemble`` in the cloud. One-way delays are 3 ms
        (Wi-Fi to the site), 7 ms (metropolitan fibre to the region) and 35 ms (wide area to the cloud).

    Examples
    --------
    >>> from coinfer.datasets import demo_network
    >>> len(demo_network().nodes)
    8
    """
    from importlib import resources

    from coinfer.network import Network

    file = resources.files("coinfer.datasets").joinpath("demo_network.toml")
    with resources.as_file(file) as path:
        return Network.open(path)
