"""What radio measurements say of the near future of a UE's link. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RadioState:
    """What is known of UEs."""
