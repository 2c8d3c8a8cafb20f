"""The command line. Commands read arguments, call the functions that pages call too, and print."""

from retrieval.cli.parser import main

__all__ = ["main"]
