"""Search photographs by example: SIR, DELF and CNN-IRwNHA. Nothing here needs a browser."""

from retrieval import threads

threads.configure()  # every way to torch goes through here, and it must come before
