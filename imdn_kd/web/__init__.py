"""Enlarging in a browser: a static page that needs no server of its own, and a server with a page."""
