"""`memlayer serve` as a process of its own, on a free port of the loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEMLAYER = str(Path(sys.executable).with_name("memlayer"))


@contextmanager
def serving(folder: Path, *options: str, tokens: dict[str, Any] | None = None) -> Iterator[str]:
    """The address of a server over a folder, which is ended as a terminal does it."""
    environment = {**os.environ} | ({"MEMLAYER_TOKENS": json.dumps(tokens)} if tokens else {})
    command = [
        MEMLAYER,
        "--path",
        str(folder),
        "--model",
        "none",
        "--embeddings",
        "none",
        "serve",
        "--port",
        "0",
        *options,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            found = re.match(r"(http://\S+)/ serves", said)
            assert found, said + process.stderr.read()
            yield found[1]
        finally:
            process.terminate()
            rest = process.stderr.read()
            code = process.wait(timeout=30)
    assert (code, "Traceback" in rest) == (0, False), rest
