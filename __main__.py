"""`python -m spatialc`."""

from .cli import main

main()
