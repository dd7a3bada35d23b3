"""Plans along an order of nodes: whoever may only go on to later ones holds one stage at most.

One sweep finds the best of all plans that take their nodes from an order, under several thresholds and for several orders at
once. So orders are what is searched: first those that follow short hops, then that of the best plan with all other nodes
put in where they cost the least detour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mec_platform.control_plane.split_revision.sweep import Bounds, Chain, Dense, Memories
from mec_platform.control_plane.split_revision.terrain import Floats, Ground, Hops, Ints

Order = tuple[int, ...]


def chains_along(ground: Ground, hops: Hops, orders: Sequence[Order], most_ms: Floats) -> list[Chain]:
    """For each order and threshold the best plan that takes its nodes from the order, without stages where there is none."""
    count = len(ground.names)
    place = np.empty((len(orders), count), dtype=np.int64)
    for number, order in enumerate(orders):
        place[number, list(order)] = np.arange(count)
    onwards = place[:, :, None] < place[:, None, :]
    cost = np.where(onwards[:, None], Dense.within(hops, most_ms).cost[None], np.inf)
    shape = (len(orders), len(most_ms), count, count)
    crossing = Dense(np.broadcast_to(cost, shape).reshape(-1, count, count))
    return Bounds(ground, np.tile(most_ms, len(orders)), crossing, Memories.of((), count)).chains()


def short_orders(ground: Ground, hops: Hops, count: int) -> list[Order]:
    """Orders that go on to the nearest node each time, from the nodes that are the cheapest to begin with."""
    begin = ground.entry + ground.starts[0] + ground.prefix[1]
    return [_nearest(hops, int(first)) for first in np.argsort(begin, kind="stable")[:count]]


def order_around(hops: Hops, chain: Sequence[int]) -> Order:
    """The nodes of `chain` in their order, and each other one where it is the least detour between two of them."""
    inside = list(dict.fromkeys(chain))
    others = np.setdiff1d(np.arange(len(hops.cost)), inside)
    if len(inside) < 2 or not len(others):
        return (*inside, *others.tolist())
    before, after = np.array(inside[:-1]), np.array(inside[1:])
    detour = hops.cost[before][:, others] + hops.cost[others][:, after].T
    gap: Ints = detour.argmin(axis=0)
    order: list[int] = []
    for number, node in enumerate(inside):
        order.append(node)
        here = others[gap == number]
        order += here[np.argsort(hops.cost[node, here], kind="stable")].tolist()
    return tuple(order)


def moved_orders(order: Order, chain: Sequence[int], most: int) -> list[Order]:
    """Up to `most` other orders in which one node of `chain` has moved along it, or two have changed places, the shortest
    moves first.
    """
    moved: dict[Order, None] = {}
    for distance in range(1, len(chain)):
        for number, node in enumerate(chain):
            rest = [each for each in order if each != node]
            for after in (number + distance, number - distance - 1):
                if -1 <= after < len(chain):
                    place = rest.index(chain[after]) + 1 if after >= 0 else 0
                    moved[(*rest[:place], node, *rest[place:])] = None
            for other in chain[number + distance : number + distance + 1]:
                swap = {node: other, other: node}
                moved[tuple(swap.get(each, each) for each in order)] = None
        if len(moved) >= most:
            break
    moved.pop(order, None)
    return list(moved)[:most]


def _nearest(hops: Hops, first: int) -> Order:
    left = np.ones(len(hops.cost), dtype=bool)
    order = [first]
    left[first] = False
    while left.any():
        order.append(int(np.where(left, hops.cost[order[-1]], np.inf).argmin()))
        if not left[order[-1]]:  # no hop leads on from here
            order[-1] = int(left.argmax())
        left[order[-1]] = False
    return tuple(order)
