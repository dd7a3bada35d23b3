"""Rules between the attributes of a message, as JSON Schema, for those that its type cannot express.

A message type that checks such a rule in `__post_init__` names it in its class variable `schema_rule` as well, so that the
OpenAPI document says what is checked. Nothing is checked here.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

Rule = dict[str, Any]


def exactly_one_of(*names: str) -> Rule:
    """One of these attributes is present, and no other of them."""
    return {"oneOf": [{"required": [name]} for name in names]}


def at_least_one_of(*names: str) -> Rule:
    """Not all of these attributes are absent."""
    return {"anyOf": [{"required": [name]} for name in names]}


def at_most_one_of(*names: str) -> Rule:
    """These attributes exclude each other."""
    return {"not": {"anyOf": [{"required": list(pair)} for pair in combinations(names, 2)]}}
