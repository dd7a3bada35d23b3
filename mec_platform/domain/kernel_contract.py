"""What compiled kernels and the node that calls them have agreed on.

Both sides take these values from here: the compiler writes them into an artefact's manifest, a node compares them with
its own. An artefact is not necessarily from the same release as the node that is offered it.
"""

from __future__ import annotations

KERNEL_VERSION = 1
"""Order and meaning of the compiled functions' arguments: raise it when either changes."""

PAGE_TOKENS = 16
"""Tokens of a KV page."""
