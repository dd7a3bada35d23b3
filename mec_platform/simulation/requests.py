"""Requests: when they come, where, how long they are, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mec_platform.control_plane.orchestrator.settings import QosTargets
from mec_platform.scenario.scenario import DeploymentSpec
from mec_platform.simulation.noise import exponential, uniform
from mec_platform.traces.arrivals import Arrival


@dataclass(frozen=True, slots=True)
class Slo:
    """What a request must keep to count as well served: the time to its first token, and the mean of each later one.

    Where a policy names no targets, those of MLPerf's server scenario for a 70B chat model hold, with tokens twice as fast.
    """

    ttft_ms: float = 2000.0
    tpot_ms: float = 100.0

    @classmethod
    def of(cls, targets: QosTargets) -> Slo:
        """The targets of a policy; what it does not name is as in the class."""
        usual = cls()
        return cls(targets.ttft_ms or usual.ttft_ms, targets.tpot_ms or usual.tpot_ms)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; tokens in and out."""

    number: int
    at_s: float
    gateway: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Served:
    """What a request got. Times are None where that point was not reached before the run ended."""

    request: Request
    first_token_s: float | None = None
    done_s: float | None = None

    @property
    def ttft_s(self) -> float | None:
        """From the request to its first token, waiting included."""
        return None if self.first_token_s is None else self.first_token_s - self.request.at_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time of each token after the first."""
        if self.first_token_s is None or self.done_s is None:
            return None
        return (self.done_s - self.first_token_s) / max(self.request.answer_tokens - 1, 1)

    def keeps(self, slo: Slo) -> bool:
        """Whether it kept the objectives; a request that was not finished did not."""
        ttft_s, tpot_s = self.ttft_s, self.tpot_s
        if ttft_s is None or tpot_s is None:
            return False
        return ttft_s * 1e3 <= slo.ttft_ms and tpot_s * 1e3 <= slo.tpot_ms


def requests_of(
    deployment: DeploymentSpec, gateways: Sequence[str], trace: Sequence[Arrival], duration_s: float, seed: int
) -> tuple[Request, ...]:
    """The requests of a run in order of time: those of the trace, which begins again when it ends, or a Poisson stream.

    None of streams without pause: when each comes depends on the one before it, so `service` asks.
    """
    demand = deployment.demand

    def request(number: int, at_s: float, prompt: int, answer: int) -> Request:
        gateway = gateways[int(uniform(seed, deployment.name, "gateway", number) * len(gateways))]
        return Request(number, at_s, gateway, prompt, max(answer, 1))

    found: list[Request] = []
    if demand.streams:
        return ()
    if not trace:
        at_s = 0.0
        while demand.per_s > 0:
            at_s += exponential(seed, deployment.name, "arrival", len(found)) / demand.per_s
            if at_s >= duration_s:
                break
            found.append(request(len(found), at_s, demand.prompt_tokens, demand.answer_tokens))
        return tuple(found)
    mean_gap_s = trace[-1].at_s / max(len(trace) - 1, 1) or 1.0
    period_s, turn = (trace[-1].at_s + mean_gap_s) / demand.speedup, 0
    while turn * period_s < duration_s:
        for arrival in trace:
            at_s = turn * period_s + arrival.at_s / demand.speedup
            if at_s >= duration_s:
                break
            found.append(request(len(found), at_s, arrival.prompt_tokens, arrival.answer_tokens))
        turn += 1
    return tuple(found)
