"""Application instances as operators see them: made, ended, removed (the Mm reference points of ETSI GS MEC 003)."""
