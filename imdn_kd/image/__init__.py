"""Image files and pixels: reading, writing, resizing."""
