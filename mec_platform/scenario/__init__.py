"""Scenario files: worlds that `mec plan` plans for and `mec simulate` runs, described in TOML."""
