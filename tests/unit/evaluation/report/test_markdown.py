from __future__ import annotations

import re

from reckg.evaluation.report.markdown import render_markdown
from tests.small_report import diversity, sample_report


def rendered() -> str:
    return render_markdown(sample_report(diversity=diversity()) | {"verdict": "It is so.", "best_baseline": "ease"})


def test_the_first_line_is_the_verdict_and_the_tables_are_whole() -> None:
    text = rendered()
    question = "Question: which items does a user take for the first time (target: new)?"
    assert text.startswith(f"It is so.\n\n{question}\n\n# Evaluation: toy \\<books\\>\n")
    lines = text.splitlines()
    rulers = [place for place, line in enumerate(lines) if re.fullmatch(r"\|(---\|)+", line)]
    assert len(rulers) > 12
    for ruler in rulers:
        assert lines[ruler - 2] == ""  # a table needs an empty line before it
        rows = [lines[ruler - 1]]
        for line in lines[ruler + 1 :]:
            if not line:
                break
            rows.append(line)
        assert len(rows) > 1
        for row in rows:
            assert len(re.findall(r"(?<!\\)\|", row)) == lines[ruler].count("|"), row


def test_what_the_data_hold_does_not_break_the_formatting() -> None:
    text = rendered()
    assert "A \\| B" in text and "mean \\|SHAP\\|" in text and "Rome \\<x\\>" in text
    assert "Emma ✓" in text and "and 3 more" in text
