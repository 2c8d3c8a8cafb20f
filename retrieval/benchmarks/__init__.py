"""``python -m retrieval bench``: every claim of speed, for anyone to repeat on their machine."""
