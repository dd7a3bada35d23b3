"""What a soak does to an edge, drawn from a seed: pure, so that the same seed plays the same disturbances again.

A step is an order to the platform, a blow to processes or connections, or both: the blow then falls in the middle of the
order. Draws do not look at the edge; only which nodes an order gets depends on which are free when it is given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from random import Random

BLOCKS = 30
MOST_BLOCKS = 18
"""What a node of the soak has room for; two share the model as 12 and 18 at the most uneven."""

PLATFORM = "platform"

Stages = list[tuple[str, int, int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A wish for a plan: nodes in order of preference, and where blocks are cut."""

    ranking: tuple[str, ...]
    cuts: tuple[int, ...]

    def stages(self, free: Collection[str]) -> Stages:
        """Stages on the first nodes of the ranking that are free; none where too few are."""
        nodes = [name for name in self.ranking if name in free][: len(self.cuts) + 1]
        if len(nodes) <= len(self.cuts):
            return []
        bounds = (0, *self.cuts, BLOCKS)
        return [(node, bounds[at], bounds[at + 1]) for at, node in enumerate(nodes)]


@dataclass(frozen=True, slots=True)
class ReSplit:
    """Another plan for a chain: the one at `chain`, counted around."""

    chain: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class AddChain:
    """One more chain, on nodes that are in none."""

    layout: Layout


@dataclass(frozen=True, slots=True)
class DropChain:
    """One chain less, counted around; refused where it is the only one."""

    chain: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to processes at once; they are started again afterwards."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hang:
    """SIGSTOP; SIGCONT afterwards."""

    name: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Every connection that the gateway has made to a process breaks; nothing keeps it from connecting again."""

    name: str


@dataclass(frozen=True, slots=True)
class Fade:
    """An EMULATED link of so many bytes/s; without limit again afterwards."""

    source: str
    target: str
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Starve:
    """An EMULATED CPU share; all of it again afterwards."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Abort:
    """The change under way, if any, is given up."""


Order = ReSplit | AddChain | DropChain
Blow = Kill | Hang | Disconnect | Fade | Starve | Abort


@dataclass(frozen=True, slots=True)
class Step:
    """The blow falls `after_s` after the order is given, and is mended `lasts_s` later; then comes `rest_s`."""

    order: Order | None
    blow: Blow | None
    after_s: float
    lasts_s: float
    rest_s: float


def draw_step(random: Random, nodes: Sequence[str], spared: Collection[str] = ()) -> Step:
    """The next step. Processes that are `spared` are not killed; two nodes at most are struck at once."""
    order = _draw_order(random, nodes) if random.random() < 0.7 else None
    blow = _draw_blow(random, nodes, spared) if order is None or random.random() < 0.6 else None
    return Step(
        order,
        blow,
        after_s=round(random.choice((0.0, random.uniform(0.0, 0.15), random.uniform(0.0, 0.6))), 3),
        lasts_s=round(random.choice((0.0, random.uniform(0.1, 1.0), random.uniform(1.0, 4.0))), 3),
        rest_s=round(random.choice((0.0, random.uniform(0.0, 1.0), random.uniform(1.0, 5.0))), 3),
    )


def _draw_order(random: Random, nodes: Sequence[str]) -> Order:
    kind = random.choices((ReSplit, AddChain, DropChain), weights=(6, 2, 2))[0]
    if kind is DropChain:
        return DropChain(random.randrange(4))
    layout = _draw_layout(random, nodes)
    return AddChain(layout) if kind is AddChain else ReSplit(random.randrange(4), layout)


def _draw_layout(random: Random, nodes: Sequence[str]) -> Layout:
    ranking = tuple(random.sample(nodes, len(nodes)))
    if random.random() < 0.7:
        return Layout(ranking, (random.randint(BLOCKS - MOST_BLOCKS, MOST_BLOCKS),))
    first = random.randint(2, MOST_BLOCKS - 2)
    return Layout(ranking, (first, random.randint(max(first + 2, BLOCKS - MOST_BLOCKS), BLOCKS - 2)))


def _draw_blow(random: Random, nodes: Sequence[str], spared: Collection[str]) -> Blow:
    kind = random.choices((Kill, Hang, Disconnect, Fade, Starve, Abort), weights=(6, 3, 3, 2, 1, 2))[0]
    if kind is Kill:
        mortal = [name for name in (*nodes, PLATFORM) if name not in spared]
        return Kill(tuple(random.sample(mortal, random.choice((1, 1, 2)))))
    if kind is Fade:
        source, target = random.sample(nodes, 2)
        return Fade(source, target, random.choice((30e3, 300e3, 3e6)))
    if kind is Starve:
        return Starve(random.choice(nodes), random.choice((0.1, 0.3)))
    if kind is Abort:
        return Abort()
    return Hang(random.choice(nodes)) if kind is Hang else Disconnect(random.choice((*nodes, PLATFORM)))
