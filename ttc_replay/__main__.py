"""`python -m ttc_replay`."""

from .cli.main import main

main()
