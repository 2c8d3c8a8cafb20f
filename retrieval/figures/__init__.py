"""Figures for the pages and the command line."""
