"""What the trees over the signals add, and where they say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from journal_dump import open_memory

from langchain_memlayer.recall import learned

SAID = (
    ("Ann", "I adopted a grey cat last week"), ("Ben", "What is the cat called?"), ("Ann", "She is called Nimbus"),
    ("Ben", "My boat needs paint"), ("Ann", "Blue would suit the boat"),
)  # fmt: skip


def shares(question: str, names: bool = True, session: str | None = "s1", said: Any = SAID) -> list[dict[str, float]]:
    turns = [{"role": "user", "content": text, **({"name": name} if names else {})} for name, text in said]
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add(turns, user_id="u", session_id=session, infer=False)
        return [hit["explanation"] for hit in memory.search(question, user_id="u", explain=True)["results"]]


def test_in_a_conversation_of_people_who_are_named_the_trees_speak() -> None:
    assert any(hit["learned"] for hit in shares("What is Ann's cat called?"))


def test_elsewhere_the_weights_that_people_chose_stand_alone() -> None:
    given: list[tuple[str, dict[str, Any]]] = [
        ("What is Ann's cat called?", {"names": False}),
        ("What is Ann's cat called?", {"said": [("Ann", text) for _, text in SAID]}),
        ("Ann的猫叫什么名字？", {"said": [*SAID, ("Ben", "猫叫什么名字？")]}),
    ]
    for question, changed in given:
        found = shares(question, **changed)
        assert found
        assert not any(hit["learned"] for hit in found)


def test_the_trees_of_the_package_are_trees() -> None:
    trees = learned.Trees.load()
    nodes = np.arange(trees.left.shape[1])
    leaf = trees.left == nodes
    assert (trees.feature < len(learned.FEATURES)).all()
    assert (leaf == (trees.right == nodes)).all()
    # Whoever follows a branch comes to a later node, and so to a leaf.
    assert ((trees.left > nodes) | leaf).all()
    assert ((trees.right > nodes) | leaf).all()
    assert (trees.value[~leaf] == 0).all()
    assert np.isfinite(trees.value).all()


def test_a_tree_goes_to_the_left_up_to_its_threshold() -> None:
    one = np.array([[0, 0, 0]], np.uint8)
    trees = learned.Trees(
        feature=one, threshold=np.array([[0.5, np.inf, np.inf]], np.float32), left=np.array([[1, 1, 2]], np.uint8),
        right=np.array([[2, 1, 2]], np.uint8), value=np.array([[0, 1, -1]], np.float32), depth=1,
    )  # fmt: skip
    rows = np.zeros((3, len(learned.FEATURES)), np.float32)
    rows[:, 0] = 0.4, 0.5, 0.6
    assert trees.sums(rows).tolist() == [1, 1, -1]
