"""Degradations that make LR images from HR images."""
