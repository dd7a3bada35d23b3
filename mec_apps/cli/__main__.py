"""`python -m mec_apps.cli` is `mec`."""

from mec_apps.cli.main import main

main()
