"""Search photographs by example: SIR, DELF and CNN-IRwNHA. Nothing here needs a browser."""

from retrieval import threads

threads.configure()  # before torch is imported, which reads its settings once
