"""What makes a student: the network and everything that its training is to bring about. Knows no training loop."""
