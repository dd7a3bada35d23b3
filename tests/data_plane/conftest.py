"""The network that tests of traffic rules send packets through."""

from tests.data_plane.namespaces import net

__all__ = ["net"]
