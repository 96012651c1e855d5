"""Execute the notebooks beside this file and keep what they print: `make notebooks`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
PRIVATE = ("OPENAI", "LANGSMITH", "LANGCHAIN", "MEMLAYER")


def main(names: list[str]) -> None:
    for name in [name for name in os.environ if name.startswith(PRIVATE)]:
        del os.environ[name]  # what is kept is what everybody gets who has no key
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:rich.live"  # it names a path of the machine
    for path in [HERE / name for name in names] or sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(
                notebook, timeout=300, record_timing=False, resources={"metadata": {"path": folder}}
            ).execute()
        notebook.metadata["language_info"] = {"name": "python"}  # not the version that it ran on
        for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
            if "data" in output:  # an address in memory is another one each time
                plain = output.data.get("text/plain", "")
                output.data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", plain)
        nbformat.write(notebook, path)
        print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
