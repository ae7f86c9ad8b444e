"""`python -m cartograd`: the command line."""

from .cli import main

main()
