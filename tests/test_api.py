"""No public name changes unseen."""

from tests.api import SNAPSHOT, snapshot


def test_public_names_are_those_on_record():
    found, known = set(snapshot().splitlines()), set(SNAPSHOT.read_text(encoding="utf-8").splitlines())

    assert sorted(known - found) == sorted(found - known) == [], "write it into the changelog, then `make api`"
