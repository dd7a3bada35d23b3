"""`mec demo`: the main job end to end on one machine, with real processes."""
