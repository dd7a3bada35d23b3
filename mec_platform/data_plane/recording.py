"""The data plane of a host that has none: rules are kept and shown, and nothing is enforced. The default."""

from __future__ import annotations

from mec_platform.data_plane.port import DataPlaneRules, Refusal, RuleKind


class RecordingDataPlane:
    """Implements `DataPlane`; its name says what it does, wherever it is shown."""

    name = "recorded only"
    enforces: frozenset[RuleKind] = frozenset()

    def __init__(self) -> None:
        self.applied = DataPlaneRules()

    def apply(self, rules: DataPlaneRules) -> tuple[Refusal, ...]:
        """Keeps them; never refuses any."""
        self.applied = rules
        return ()

    def is_intact(self) -> bool:
        """Nobody else can change it."""
        return True
