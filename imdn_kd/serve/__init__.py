"""A web page and an HTTP endpoint that upscale pictures; needs the extra `web`."""
