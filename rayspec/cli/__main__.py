"""`python -m rayspec.cli`, for where the entry point is not installed."""

from rayspec.cli.main import main

main()
