"""Fetching artefacts and weights from the platform and from other nodes into the local content store."""
