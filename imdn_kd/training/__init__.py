"""Training: options, and what moves the weights."""
