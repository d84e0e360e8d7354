"""Pages: every Python block of the README and of the documentation runs as it stands."""

from pathlib import Path
from typing import Any

import pytest
from tests.docs.snippets import ROOT, run, snippets

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [page for page in PAGES if "_build" not in page.parts and any(snippets(page))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("_fresh")
async def test_every_block_of_a_page_runs(page: Path, servers: dict[str, str]) -> None:
    """Whoever pastes the blocks of a page in order gets what the page says."""
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for snippet in snippets(page):
        await run(snippet, namespace, servers)


def test_the_pages_have_code() -> None:
    """The README and most pages of the guide show how it is done."""
    names = {str(page.relative_to(ROOT)) for page in WITH_CODE}
    assert "README.md" in names
    guide = sorted((ROOT / "docs" / "guide").glob("*.md"))
    assert len([page for page in guide if str(page.relative_to(ROOT)) in names]) > len(guide) * 0.8


def test_a_block_of_python_is_python() -> None:
    """What is fenced as Python in our own pages is a program, so that none is skipped."""
    assert not [f"{page}:{snippet.line}" for page in WITH_CODE for snippet in snippets(page) if not snippet.is_python]
