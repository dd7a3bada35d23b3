"""A real etcd for hosts of several replicas."""

from tests.registry.conftest import etcd, etcd_settings

__all__ = ["etcd", "etcd_settings"]
