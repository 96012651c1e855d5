"""What the site's pages take from the code when they are built: the prompts, word for word."""

from __future__ import annotations

import re
from typing import Any

from langchain_memlayer.facts import prompts


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the text of a prompt in the place of its mark, such as `<!-- prompt: EXTRACTION_EXAMPLES -->`."""
    return re.sub(r"^<!-- prompt: (\w+) -->$", lambda mark: _shown(mark[1]), markdown, flags=re.MULTILINE)


def _shown(name: str) -> str:
    return f"````text\n{getattr(prompts, name)}\n````"
