"""`python -m raypipe.cli`."""

from raypipe.cli import main

main()
