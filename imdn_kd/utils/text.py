"""Text of messages: helpers."""


def one_line(message: str) -> str:
    """Return `message` without line breaks, which file names and library errors may contain."""
    return " ".join(message.splitlines())
