"""Tests of tests/text.py, which measures the language of docstrings and comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text import Counts, count_source, count_words, main

SOURCE = '''"""One two What, of which what's whatever. Of
those, of course."""

x = "what of which is no docstring"  # a comment of
# whom # noqa: PLR0913


def documented(a: int) -> int:
    """Adds.

    Args:
        a: the number.

    >>> what, of, which = 1, 2, 3
    """
    return a


class Thing:
    """A thing."""

    def method(self) -> None:
        """No parameters."""

    async def other(self, *, b: int) -> None:
        """Args: are not a section here."""

    def undocumented(self, c: int) -> None: ...
'''


def test_counts_of_a_known_source() -> None:
    module, comment, documented, others = 11, 4, 5, 2 + 2 + 6
    words = module + comment + documented + others
    assert count_source(SOURCE) == Counts(words, what=2, of=3, parametrized=2, args=1)


@pytest.mark.parametrize(
    ("text", "what", "of"),
    [
        ("What what WHAT; what's, whatever, somewhat", 4, 0),
        ("of which of whom of those of what of one of it of them", 1, 7),
        ("Of\n   Which, of   it's", 0, 2),
        ("of the which, off it, of ones, of item", 0, 0),
    ],
)
def test_words_are_counted_whole_and_in_any_case(text: str, what: int, of: int) -> None:
    counts = count_words(text)
    assert (counts.what, counts.of) == (what, of)


def test_limits() -> None:
    within = Counts(words=1000, what=1, of=1, parametrized=100, args=35)
    assert within.within_limits
    assert Counts().within_limits
    for worse in (Counts(what=1), Counts(of=1), Counts(parametrized=1)):
        assert not (within + worse).within_limits


def test_the_exit_status_says_whether_the_text_is_within_the_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.py").write_text('"""Plain words."""\n')
    assert main([str(tmp_path)]) == 0
    (tmp_path / "other.py").write_text("# what is this\n")
    assert main([str(tmp_path)]) == 1
    assert "over" in capsys.readouterr().out


def test_the_text_of_the_packages_is_within_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0, capsys.readouterr().out
