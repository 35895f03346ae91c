"""report.html: a page without network access, for light and dark screens, for phones and for paper."""

from __future__ import annotations

from html import escape

from reckg.evaluation.report import page_appendix as appendix
from reckg.evaluation.report import page_sections as sections
from reckg.evaluation.report.contents import WrittenReport
from reckg.evaluation.report.style import STYLE

MOODS = {1: " good", -1: " bad", 0: ""}
SECTIONS = (
    ("New items", sections.new_items_section),
    ("Accuracy", sections.systems_section),
    ("Paired differences", sections.differences_section),
    ("Where it fails worst", sections.worst_section),
    ("Beside accuracy", sections.beyond_section),
    ("Diversity and its price", sections.diversity_section),
    ("Groups of users and items", sections.slices_section),
    ("Sample users", sections.samples_section),
    ("Ranker", appendix.ranker_section),
    ("Index", appendix.index_section),
    ("Training", appendix.training_section),
    ("Leakage checks", appendix.checks_section),
    ("Protocol", appendix.protocol_section),
    ("Settings of the systems", appendix.settings_section),
    ("Data", appendix.data_section),
    ("Time and memory", appendix.timing_section),
)


def render_html(report: WrittenReport) -> str:
    """Renders the page of a report. Sections that the report lacks are left out.

    Args:
        report: as `report.write_report` completes it.
    """
    name = escape(str(report.get("name", "")))
    made = " · ".join(escape(str(report[key])) for key in ("created", "version") if report.get(key))
    written = [(title, section(report)) for title, section in SECTIONS]
    shown = [(title, title.lower().replace(" ", "-"), content) for title, content in written if content]
    links = " ".join(f'<a href="#{anchor}">{title}</a>' for title, anchor, _ in shown)
    body = "\n".join(f'<h2 id="{anchor}">{title}</h2>{content}' for title, anchor, content in shown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Evaluation {name}</title><style>{STYLE}</style></head><body><main>"
        f'<p class="verdict{MOODS[report["mood"]]}">{escape(report["verdict"])}</p>'
        f'<h1>Evaluation{": " + name if name else ""}</h1><p class="soft">{made}</p>'
        f"<p>{escape(report['protocol']['words'][0])}</p>"
        f"{sections.tiles(report)}<nav>{links}</nav>{body}</main></body></html>\n"
    )
