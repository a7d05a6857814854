"""Text files of other editors, and names that would steer a terminal."""

from __future__ import annotations

import codecs
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.utils.text import PrintableFormatter, printable, printable_lines, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
def test_text_is_read_however_an_editor_has_saved_it(tmp_path_factory, encoding, text):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode(encoding))
    # A mark that is part of the text cannot be told from one of the editor.
    expected = text.removeprefix("\ufeff") if encoding == "utf-8" else text
    assert read_text(path) == expected


def test_bytes_that_are_not_text_are_refused(tmp_path):
    for data in (b"\xff\x00", b"a\xe9", codecs.BOM_UTF16_LE + b"a"):
        (tmp_path / "a.txt").write_bytes(data)
        with pytest.raises(UnicodeDecodeError):
            read_text(tmp_path / "a.txt")


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left_and_nothing_else_is_changed(text):
    shown = printable(text)
    shown.encode()  # no lone surrogates
    assert not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in shown)
    if all(letter.isprintable() for letter in text):
        assert shown == text
    assert printable_lines(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x07.png", r"a\x1b[31mred\x07.png"),
        ("two\nlines", r"two\nlines"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\udcff.png", r"\udcff.png"),
        ("Bär\u00a0\u3000日本 👩\u200d💻.png", "Bär\u00a0\u3000日本 👩\u200d💻.png"),
    ],
)
def test_names_are_shown(text, shown):
    assert printable(text) == shown


def test_lines_of_a_log_cannot_steer_either():
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s: left out\nnext", ("\x1b[2J",), None)
    assert PrintableFormatter().format(record) == "\\x1b[2J: left out\nnext"
