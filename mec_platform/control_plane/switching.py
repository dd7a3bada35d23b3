"""What it takes to bring one block to a node: its weights, and the KV that sessions have in it.

Estimates for the choice between plans, block by block, so that they add up over any cut. Belongs to none of the four
modules, which do not know each other. Counterpart: `split_revision.cost_model` weighs them against tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from mec_platform.domain.capacity import LinkCapacity, NodeCapacity, Snapshot
from mec_platform.domain.link_table import LinkTable
from mec_platform.domain.split_plan import kv_holders

SLOWEST_BYTES_PER_S = 1.0
"""A rate that was measured as zero still gets a finite cost, so that what crosses it can be compared."""


@dataclass(frozen=True, slots=True)
class Switching:
    """A change from the snapshot's plan to whatever comes next. Times in milliseconds."""

    snapshot: Snapshot
    links: LinkTable
    default_link: LinkCapacity

    def stays(self, stages: Sequence[object]) -> bool:
        """Whether these stages are those of the snapshot's plan, or there is nothing yet that a change would disturb."""
        plan, model = self.snapshot.plan, self.snapshot.model
        return plan is None or model is None or plan.model != model.name or plan.stages == tuple(stages)

    def block_ms(self, node: NodeCapacity) -> list[float]:
        """For every block: fetching its weights to `node`, and bringing the sessions' KV there.

        KV travels from the node that has it or, where that is gone, a standby; else it is computed again. What the node has
        is free.
        """
        model, plan = self.snapshot.model, self.snapshot.plan
        if model is None:
            return []
        times = [0.0] * model.blocks
        if node.local_blocks is not None:
            rate = max(node.weights_bytes_per_s, SLOWEST_BYTES_PER_S)
            for block in set(range(model.blocks)) - node.local_blocks:
                size = model.block_bytes + (model.embed_bytes if block == 0 else 0)
                times[block] = (size + (model.head_bytes if block == model.blocks - 1 else 0)) / rate * 1e3
        if plan is None or plan.model != model.name:
            return times
        lost = [name for name in plan.members if name not in self.links.sites or name in self.snapshot.lost_nodes]
        holders = {stage.layers: stage.node for stage in kv_holders(plan, lost)}
        for stage in plan.stages:
            holder = holders.get(stage.layers, "")
            moved = 0.0 if holder == node.name else self._kv_ms(holder, node)
            for block in range(stage.layers.start, min(stage.layers.stop, model.blocks)):
                times[block] = 0.0 if holder == node.name else times[block] + moved
        return times

    def prefix_ms(self, node: NodeCapacity) -> tuple[float, ...]:
        """Sums of `block_ms`: blocks `[a, b)` take `prefix[b] - prefix[a]`."""
        return tuple(accumulate(self.block_ms(node), initial=0.0))

    def _kv_ms(self, holder: str, node: NodeCapacity) -> float:
        """One block's KV of all sessions; computed again where nobody holds it ("")."""
        positions = sum(gateway.context_positions for gateway in self.snapshot.gateways)
        if not positions or self.snapshot.model is None:
            return 0.0
        if not holder:
            return _replay_ms(node, positions, max(1, sum(gateway.sessions for gateway in self.snapshot.gateways)))
        link = self.links.link(holder, node.name) or self.default_link
        rate = max(link.bytes_per_s, SLOWEST_BYTES_PER_S)
        return positions * self.snapshot.model.kv_bytes_per_token_per_block / rate * 1e3


def _replay_ms(node: NodeCapacity, positions: int, sessions: int) -> float:
    if node.profile is None:
        return positions * node.prefill_block_time_s_per_row * 1e3
    return sessions * node.profile.replay_block_s(positions / sessions) * node.profile_ratio * 1e3
