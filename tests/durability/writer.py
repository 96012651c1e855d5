"""Writes to folders and dies on the way: `python writer.py` reads orders, forks for each, and tells what was stored.

An order is a line of JSON: the scenario, its folder and seed, and how to die: `{"acks": 3, "delay": .002}` (by the
parent's SIGKILL), `{"step": "before-commit", "nth": 2}`, `{"statement": 17}` (by its own) or `{}` (not at all). The
reply has the lines that the child wrote to the pipe, and whether it was killed.
"""

import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folders import Echo, items, memories, open_memory, open_store, sentence
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.store.base import PutOp

from langchain_memlayer import checkpointer
from langchain_memlayer.index import files
from langchain_memlayer.journal import sqlite

Report = Callable[..., None]
CANARY = "xylophone-canary-8841"
_READS = ("--", "SELECT", "PRAGMA SYNC", "PRAGMA SECURE", "PRAGMA MMAP", "PRAGMA CACHE", "PRAGMA APP", "PRAGMA USER")


def write_memories(folder: Path, seed: int, report: Report) -> None:
    rng = random.Random(seed)
    with open_memory(folder) as memory:
        live = sorted(memories(memory))
        for number in range(500):
            # A search now and then loads the slab, and so builds and saves its graph beside the writes.
            if number % 5 == 0:
                memory.search(sentence(seed, number), user_id="u0")
            what = rng.choice(["add", "add", "update", "delete"]) if live else "add"
            if what == "add":
                user, texts = f"u{rng.randrange(2)}", [sentence(seed, number, k) for k in range(rng.randint(1, 3))]
                report("try", ["add", user, texts])
                added = memory.add([{"role": "user", "content": text} for text in texts], user_id=user)["results"]
                live += [row["id"] for row in added]
                report("done", [[row["id"], user, row["memory"]] for row in added])
            elif what == "update":
                key, text = rng.choice(live), sentence(seed, number)
                report("try", ["update", key, text])
                memory.update(key, text)
                report("done", None)
            else:
                key = live.pop(rng.randrange(len(live)))
                report("try", ["delete", key])
                memory.delete(key)
                report("done", None)


def converse(folder: Path, seed: int, report: Report) -> None:
    """Tells messages that are read at once, and every third one beside the caller."""
    with open_memory(folder, extractor=Echo(), reconcile="off") as memory:
        for number in range(30):
            report("try", sentence(seed, number))
            said = {"role": "user", "content": sentence(seed, number), "id": f"{seed}-{number}"}
            memory.add(said, user_id="u0", background=number % 3 == 2)
            report("done", None)


def write_items(folder: Path, seed: int, report: Report) -> None:
    rng = random.Random(seed)
    with open_store(folder) as store:
        live = sorted(items(store))
        for number in range(500):
            if number % 5 == 0:
                store.search(("docs",), query=sentence(seed, number))
            changes: list[list[Any]] = []
            for k in range(rng.choice([1, 1, 6])):
                new = ("docs", f"n{k % 3}"), f"k{seed}-{number}-{k}"
                namespace, key = rng.choice(live) if live and rng.random() < 0.5 else new
                changes.append([namespace, key, None if rng.random() < 0.3 else sentence(seed, number, k)])
            report("try", changes)
            if len(changes) > 1:
                store.batch([PutOp(tuple(n), k, None if t is None else {"text": t}) for n, k, t in changes])
            elif changes[0][2] is None:
                store.delete(tuple(changes[0][0]), changes[0][1])
            else:
                store.put(tuple(changes[0][0]), changes[0][1], {"text": changes[0][2]})
            report("done", None)


def begin(folder: Path, seed: int, report: Report) -> None:
    """Makes the folder and its first memories."""
    with open_memory(folder) as memory:
        texts = [sentence(seed, k) for k in range(3)]
        report("try", ["add", "u0", texts])
        added = memory.add([{"role": "user", "content": text} for text in texts], user_id="u0")["results"]
        report("done", [[row["id"], "u0", row["memory"]] for row in added])


def forget(folder: Path, seed: int, report: Report) -> None:
    with open_memory(folder) as memory:
        memory.search(CANARY, user_id="u0")
        report("try", "forget")
        memory.forget(user_id="u0")
        report("done", None)


def reset(folder: Path, seed: int, report: Report) -> None:
    with open_memory(folder) as memory:
        report("try", "reset")
        memory.reset()
        report("done", None)


def delete_thread(folder: Path, seed: int, report: Report) -> None:
    with checkpointer(folder) as saver:
        put_checkpoint(saver, "kept", f"kept {seed}")
        report("try", "delete")
        saver.delete_thread("gone")
        report("done", None)


def put_checkpoint(saver: Any, thread: str, text: str) -> None:
    config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    checkpoint = {**empty_checkpoint(), "channel_values": {"text": text}}
    config = saver.put(config, checkpoint, {"source": "input", "step": 1}, {})
    saver.put_writes(config, [("text", text)], "task")


SCENARIOS = {f.__name__: f for f in (write_memories, converse, write_items, begin, forget, reset, delete_thread)}


def _die_at_step(step: str, nth: int) -> None:
    left = [nth]

    def at(name: str) -> None:
        left[0] -= name == step
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    files._step = at
    sqlite._step = at


def _die_at_statement(nth: int, report: Report) -> None:
    """Counts the statements that may write, over all connections, and dies before the n-th."""
    count = [0]
    connect = sqlite3.connect

    def traced(*args: Any, **settings: Any) -> sqlite3.Connection:
        db = connect(*args, **settings)

        def at(sql: str) -> None:
            if not sql.lstrip().upper().startswith(_READS):
                count[0] += 1
                if count[0] == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                report("statement", count[0])

        db.set_trace_callback(at)
        return db

    sqlite3.connect = traced


def _child(order: dict[str, Any], pipe: int) -> None:
    def report(kind: str, what: Any) -> None:
        os.write(pipe, json.dumps([kind, what]).encode() + b"\n")

    die = order["die"]
    if "step" in die:
        _die_at_step(die["step"], die["nth"])
    if "statement" in die:
        _die_at_statement(die["statement"], report)
    SCENARIOS[order["scenario"]](Path(order["folder"]), order["seed"], report)


def _run(order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 1
        try:
            _child(order, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    data, acks, deadline = b"", order["die"].get("acks"), None
    while True:
        if acks is not None and deadline is None and data.count(b'["done"') >= acks:
            deadline = time.monotonic() + order["die"]["delay"]
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], timeout)[0]:
            os.kill(child, signal.SIGKILL)
            acks, deadline = None, None
            continue
        part = os.read(reading, 1 << 16)
        if not part:
            break
        data += part
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    return {
        "lines": [json.loads(line) for line in data.splitlines()],
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "ended": os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(json.loads(line))) + "\n")
        sys.stdout.flush()
