"""Images on their way to training and evaluation."""
