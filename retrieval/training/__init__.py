"""Training: fine-tuning of trunks, and the layers that each method adds to them."""
