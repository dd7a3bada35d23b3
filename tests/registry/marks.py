"""Marks of tests that need more than Python."""

from __future__ import annotations

import pytest

from tests.registry.etcd_cluster import ETCD

needs_etcd = pytest.mark.skipif(ETCD is None, reason="there is no etcd here: apt-get install etcd-server")
