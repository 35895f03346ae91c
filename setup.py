"""The package's long description; everything else stands in pyproject.toml.

A wheel has no docs/ folder, so links from README.md into the repository become their plain text there.
"""

import re
from pathlib import Path

from setuptools import setup

readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"!?\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", readme),
    long_description_content_type="text/markdown",
)
