"""Who may call what between platform, nodes, gateways and operators: one table. Pure.

`call_gate` asks it about every call over mutual TLS. What is not in the table may be called by nobody. Where the table
lets every certificate of the authority pass, something behind it decides: the registry's tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mec_platform.identity.names import Grant, Identity, Role

_V1 = "/mec_platform.rpc.v1."
ANYBODY = frozenset(Role)


@dataclass(frozen=True, slots=True)
class Rule:
    """Roles that may call; `own_name` is the field of the request that must be the caller's own name. Of members, those that
    were granted `grant`, where there is one."""

    roles: frozenset[Role]
    own_name: str = ""
    grant: Grant | None = None


def _rows(service: str, methods: str, *roles: Role, own_name: str = "", grant: Grant | None = None) -> dict[str, Rule]:
    return {f"{service}/{method}": Rule(frozenset(roles), own_name, grant) for method in methods.split()}


RULES: Mapping[str, Rule] = {
    # At the platform. Members report for themselves alone.
    **_rows(f"{_V1}CapacityProfiler", "Report", Role.MEMBER, own_name="name"),
    **_rows(f"{_V1}CapacityProfiler", "GetSnapshot Watch ListDeployments", Role.OPERATOR, Role.PLATFORM),
    **_rows(f"{_V1}AdaptiveOrchestrator", "ReportFailure", Role.MEMBER, own_name="reporter"),
    **_rows(f"{_V1}AdaptiveOrchestrator", "WatchDecisions", Role.OPERATOR, Role.PLATFORM),
    **_rows(f"{_V1}SplitRevision", "ProposePlan", Role.OPERATOR, Role.PLATFORM),
    **_rows(f"{_V1}ReconfigurationBroadcast", "ApplyPlan DropChain AbortReconfiguration", Role.OPERATOR),
    **_rows(f"{_V1}ReconfigurationBroadcast", "GetPlan", Role.MEMBER, Role.OPERATOR, Role.PLATFORM),
    **_rows(f"{_V1}ReconfigurationBroadcast", "WatchReconfigurations", Role.OPERATOR, Role.PLATFORM),
    **_rows(f"{_V1}MemberCertificates", "Renew", Role.MEMBER),
    **_rows(f"{_V1}RadioAccess", "ReportRadio", Role.CLIENT, Role.OPERATOR),
    # At the platform and at nodes.
    **_rows(f"{_V1}ContentStore", "ListEntries GetManifest ReadFile ReadPart ListSources", Role.MEMBER, Role.OPERATOR),
    # At nodes. Plans come from the platform alone; what sessions need from those who compute them.
    **_rows(f"{_V1}EdgeNode", "LoadStage AbortEpoch CommitEpoch", Role.PLATFORM),
    **_rows(f"{_V1}EdgeNode", "Emulate", Role.PLATFORM, Role.OPERATOR),
    **_rows(f"{_V1}EdgeNode", "Describe", Role.PLATFORM, Role.OPERATOR),
    # Gateways say where KV goes, and nodes send it: a node that asked for it itself could have that of blocks which it must
    # not see.
    **_rows(f"{_V1}EdgeNode", "ExportKv SendKv EndSession", Role.MEMBER, grant=Grant.GATEWAY),
    **_rows(f"{_V1}EdgeNode", "ImportKv", Role.MEMBER, grant=Grant.NODE),
    **_rows(f"{_V1}DataPlane", "Frames", Role.MEMBER),
    # At gateways.
    **_rows(f"{_V1}Inference", "Generate", Role.CLIENT, Role.OPERATOR),
    **_rows(f"{_V1}Inference", "ListSessions", Role.OPERATOR, Role.PLATFORM),
    **_rows(f"{_V1}Inference", "SwitchPlan RevertPlan HoldPlans", Role.PLATFORM),
}
"""By full method name."""

OPEN_SERVICES = frozenset(
    {
        f"{_V1}ServiceRegistry",
        f"{_V1}Federation",
        "/grpc.health.v1.Health",
        "/grpc.reflection.v1alpha.ServerReflection",
    }
)
"""Every certificate of the authority may call these: they ask for tokens themselves, or tell nothing worth hiding."""


def rule_of(method: str) -> Rule | None:
    """The row of a full method name; None where nobody may call it."""
    if method.rpartition("/")[0] in OPEN_SERVICES:
        return Rule(ANYBODY)
    return RULES.get(method)


def decide_refusal(
    method: str, callers: Iterable[Identity], said: str | None, grants: frozenset[Grant] = frozenset()
) -> str | None:
    """Why a call is refused of somebody whose certificate stands for `callers` with `grants`; None where it may be made.

    `said` is what the request says in the row's `own_name`.
    """
    rule = rule_of(method)
    callers = sorted(callers, key=lambda caller: caller.uri)
    who = " and ".join(map(str, callers)) or "somebody whose certificate names nobody"
    if rule is None:
        return f"{method} is for nobody"
    fitting = [caller for caller in callers if caller.role in rule.roles]
    if not fitting:
        allowed = " or ".join(sorted(f"a certificate of role {role}" for role in rule.roles))
        return f"{method} is not for {who}: it takes {allowed}; see mec certs issue"
    if rule.grant is not None and rule.grant not in grants:
        return f"{method} is not for {who}: its certificate does not grant it to be a {rule.grant}"
    if rule.own_name and said not in {caller.name for caller in fitting}:
        return f"{method} of {said!r} comes from {who}: everybody speaks for themselves alone"
    return None
