"""Engines: runtimes other than PyTorch that run the graph of a network on the CPU."""
