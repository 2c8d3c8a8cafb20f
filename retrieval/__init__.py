"""Search photographs by example: SIR, DELF and CNN-IRwNHA. Nothing here needs a browser."""
