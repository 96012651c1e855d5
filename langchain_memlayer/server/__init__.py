"""A memory over HTTP: REST, MCP and the inspector, one application; the extra `server`.

access.py       tokens and what each may reach
guard.py        what every request passes: host, origin, token, size, patience
bodies.py       what the REST calls take
rest.py         the REST calls; openapi.py describes them
mcp_tools.py    the tools of MCP
inspector.py    the pages; languages.py their words, evaluations.py runs side by side
application.py  the application, and how it is run
"""

from langchain_memlayer.server.access import Tokens
from langchain_memlayer.server.application import create_app

__all__ = ["Tokens", "create_app"]
