"""A static page that enlarges pictures in the visitor's browser."""
