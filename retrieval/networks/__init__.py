"""Networks: the registry of weights, their safe reading, and the trunks they are put into."""
