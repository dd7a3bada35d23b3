"""The best plan by other means than the search: all plans one by one, and a mixed-integer programme for HiGHS."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from mec_platform.control_plane.split_revision.checker import check_plan
from mec_platform.control_plane.split_revision.cost_model import PlanCosts, kv_positions
from mec_platform.control_plane.split_revision.settings import PlanSettings
from mec_platform.domain.capacity import Snapshot
from mec_platform.domain.layers import ranges_from_cuts
from mec_platform.domain.split_plan import SplitPlan, Stage


def least_cost_of_all(snapshot: Snapshot, settings: PlanSettings) -> float | None:
    """The cost of the best of all plans that pass the checker, None where there is none."""
    costs = PlanCosts(snapshot, settings)
    best: float | None = None
    for plan in all_plans(snapshot):
        cost = costs.cost(plan.stages)
        assert cost is not None
        if (best is None or cost.total_ms < best) and not check_plan(plan, snapshot, settings):
            best = cost.total_ms
    return best


def all_plans(snapshot: Snapshot) -> list[SplitPlan]:
    """Every ordered choice of nodes with every cut, limits or not."""
    assert snapshot.model is not None
    blocks, parent = snapshot.model.blocks, snapshot.plan.epoch if snapshot.plan else 0
    plans = []
    for count in range(1, min(len(snapshot.nodes), blocks) + 1):
        for names in permutations([node.name for node in snapshot.nodes], count):
            for cuts in combinations(range(1, blocks), count - 1):
                ranges = ranges_from_cuts(blocks, cuts)
                stages = tuple(Stage(name, layers) for name, layers in zip(names, ranges, strict=True))
                plans.append(SplitPlan(parent + 1, parent, snapshot.model.name, stages))
    return plans


class Programme:
    """Which block is on which node, `x[b, n]`, and which hop follows block b, `z[b, n, m]`, as a flow of one token.

    A node is come to at most once. `busiest` is one more variable. Trust, memory and links are rows and bounds.
    """

    def __init__(self, snapshot: Snapshot, settings: PlanSettings) -> None:
        assert snapshot.model is not None
        self._costs, self._model = PlanCosts(snapshot, settings), snapshot.model
        self._settings, self._nodes = settings, snapshot.nodes
        self._blocks, self._count = snapshot.model.blocks, len(snapshot.nodes)
        self._x = np.arange(self._blocks * self._count).reshape(self._blocks, self._count)
        first = self._x.size
        hops = (self._blocks - 1) * self._count**2
        self._z = (first + np.arange(hops)).reshape(self._blocks - 1, self._count, self._count)
        self._busiest = first + hops
        self._rows: list[tuple[list[int], list[float], float, float]] = []

    def least_cost(self, seconds: float) -> tuple[float, float]:
        """The cost of the best plan that HiGHS finds in this time, and a bound that no plan is below. Both are infinite
        where there is no plan."""
        objective, upper = self._objective(), np.ones(self._busiest + 1)
        upper[self._busiest] = np.inf
        self._forbid(upper)
        self._flow()
        self._limits()
        numbers = np.repeat(np.arange(len(self._rows)), [len(row[0]) for row in self._rows])
        columns = np.concatenate([row[0] for row in self._rows])
        values = np.concatenate([row[1] for row in self._rows])
        matrix = coo_array((values, (numbers, columns)), shape=(len(self._rows), self._busiest + 1)).tocsr()
        integral = np.zeros(self._busiest + 1)
        integral[: self._x.size] = 1
        result = milp(
            objective,
            integrality=integral,
            bounds=Bounds(np.zeros_like(upper), upper),
            constraints=LinearConstraint(matrix, [row[2] for row in self._rows], [row[3] for row in self._rows]),
            options={"time_limit": seconds, "mip_rel_gap": 1e-6},
        )
        if result.status == 2:
            return np.inf, np.inf
        return (np.inf if result.fun is None else float(result.fun)), float(result.mip_dual_bound)

    def _objective(self) -> np.ndarray:
        costs, settings = self._costs, self._settings
        compute = settings.alpha - settings.beta * costs.fair_share
        objective = np.zeros(self._busiest + 1)
        weights = np.arange(self._blocks, 0, -1) / (self._blocks * (self._blocks + 1) / 2)
        for n, node in enumerate(self._nodes):
            times = costs.times[node.name]
            objective[self._x[:, n]] = compute * times.block_s * 1e3
            objective[self._x[:, n]] += 0.0 if node.trusted else settings.gamma_ms * weights
            objective[self._x[0, n]] += settings.alpha * costs.entry(node.name).latency_ms
            objective[self._x[-1, n]] += settings.alpha * costs.exit(node.name).latency_ms
            objective[self._x[-1, n]] += compute * times.head_s * 1e3
            for m, other in enumerate(self._nodes):
                if n != m:
                    objective[self._z[:, n, m]] = settings.alpha * costs.between(node.name, other.name).latency_ms
        objective[self._busiest] = settings.beta + settings.throughput
        return objective

    def _forbid(self, upper: np.ndarray) -> None:
        settings = self._settings
        for n, node in enumerate(self._nodes):
            if not node.trusted:
                upper[self._x[: max(1, settings.trusted_first_blocks), n]] = 0
                upper[self._x[self._blocks - max(1, settings.trusted_last_blocks) :, n]] = 0
            for m, other in enumerate(self._nodes):
                busy = self._costs.between(node.name, other.name).measured_busy_ms if n != m else 0.0
                if busy > settings.longest_transmission_ms:
                    upper[self._z[:, n, m]] = 0

    def _flow(self) -> None:
        for b in range(self._blocks):
            self._row(self._x[b], np.ones(self._count), 1, 1)
        for b in range(self._blocks - 1):
            for n in range(self._count):
                ones = np.ones(self._count)
                self._row([*self._z[b, n], self._x[b, n]], [*ones, -1], 0, 0)
                self._row([*self._z[b, :, n], self._x[b + 1, n]], [*ones, -1], 0, 0)
        for m in range(self._count):
            into = self._z[:, [n for n in range(self._count) if n != m], m].reshape(-1)
            self._row([*into, self._x[0, m]], np.ones(len(into) + 1), 0, 1)

    def _limits(self) -> None:
        model, costs = self._model, self._costs
        per_block = (
            model.block_bytes + kv_positions(costs.snapshot, self._settings) * model.kv_bytes_per_token_per_block
        )
        sizes = np.full(self._blocks, float(per_block))
        sizes[0] += model.embed_bytes
        sizes[-1] += model.head_bytes
        for n, node in enumerate(self._nodes):
            self._row(self._x[:, n], sizes / 1e6, 0, node.memory_bytes / 1e6)
            times = np.full(self._blocks, costs.times[node.name].block_s * 1e3)
            times[-1] += costs.times[node.name].head_s * 1e3
            self._row([*self._x[:, n], self._busiest], [*times, -1], -np.inf, 0)
            self._row([self._x[0, n], self._busiest], [costs.entry(node.name).busy_ms, -1], -np.inf, 0)
            self._row([self._x[-1, n], self._busiest], [costs.exit(node.name).busy_ms, -1], -np.inf, 0)
            for m, other in enumerate(self._nodes):
                if n != m:
                    busy = costs.between(node.name, other.name).busy_ms
                    hops = self._z[:, n, m]
                    self._row([*hops, self._busiest], [*np.full(len(hops), busy), -1], -np.inf, 0)

    def _row(self, columns: object, values: object, low: float, high: float) -> None:
        self._rows.append((np.asarray(columns), np.asarray(values, dtype=float), low, high))  # type: ignore[arg-type]
