"""The command line: thin doors to the functions that the pages call too."""

from retrieval.cli.parser import main

__all__ = ["main"]
