"""Layouts of data sets: files of folders and archives alike, and where HR and LR images are among them."""
