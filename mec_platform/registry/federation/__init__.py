"""MEC hosts share their services (reference point Mp3 of ETSI GS MEC 003, in the manner of ETSI GS MEC 040).

Each platform follows each of the others: `peer_link` reads what a peer's `sharing` writes, `reconciliation` decides what that
changes here, and one event changes the copies and the place in the peer's history together. Every service has one owner, the
platform that it was registered at, and nobody passes on what is another's: so there are no loops, no conflicts and no
tombstones. A removal is a change in the owner's ordered history, or absence from its list; nothing brings a service back
but its owner.
"""
