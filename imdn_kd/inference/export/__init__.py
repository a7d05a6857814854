"""Export: networks as files for other runtimes, each compared with PyTorch before it is written."""
