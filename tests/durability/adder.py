"""`python adder.py FOLDER NAME COUNT`: adds memories beside another process, then says what it sees."""

import json
import sys
from pathlib import Path

from folders import memories, open_memory, sentence


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: Path, name: int, count: int) -> None:
    say("ready")
    sys.stdin.readline()
    with open_memory(folder) as memory:
        for k in range(count):
            memory.add(sentence(name, k), user_id="u0" if k % 2 else f"own{name}")
        say("added")
        sys.stdin.readline()
        texts = [sentence(other, k) for other in (1, 2) for k in range(1, count, 2)]
        first = [memory.search(text, user_id="u0", limit=1)["results"][0]["memory"] for text in texts]
        missed = [text for text, found in zip(texts, first, strict=True) if text != found]
        say(json.dumps({"stored": len(memories(memory)), "missed": missed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
