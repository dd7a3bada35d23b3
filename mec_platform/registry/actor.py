"""Who causes the change that is being made: set by the edge for each request, written into the log as the audit trail."""

from __future__ import annotations

from contextvars import ContextVar

current_actor: ContextVar[str] = ContextVar("current_actor", default="platform")
"""The id of a client, or "platform" for what the platform does by itself."""

ANONYMOUS = "anonymous"
"""The audit trail's name for who has not said who it is."""
