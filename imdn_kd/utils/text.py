"""Text of messages."""


def one_line(message: str) -> str:
    """Return `message` without line breaks, which file names and library errors may hold."""
    return " ".join(message.splitlines())
