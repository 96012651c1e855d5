"""Small data sets of our own, in the shapes of LoCoMo and LongMemEval."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_memlayer import Memory
from langchain_memlayer.testing import DeterministicEmbeddings

LOCOMO: list[dict[str, Any]] = [
    {
        "sample_id": "beekeepers",
        "conversation": {
            "speaker_a": "Ilse",
            "speaker_b": "Tom",
            "session_1_date_time": "9:05 am on 3 March, 2024",
            "session_1": [
                {"speaker": "Ilse", "dia_id": "D1:1", "text": "My two hives are called Juno and Bertha."},
                {"speaker": "Tom", "dia_id": "D1:2", "text": "Where did you put them?"},
                {"speaker": "Ilse", "dia_id": "D1:3", "text": "Behind the chapel.", "blip_caption": "a stone chapel"},
            ],
            "session_2_date_time": "12:30 pm on 12 April, 2024",
            "session_2": [
                {"speaker": "Tom", "dia_id": "D2:1", "text": "I was stung on the ear yesterday."},
                {"speaker": "Ilse", "dia_id": "D2:2", "text": "Vinegar helps, my grandmother swore by it."},
            ],
            "session_3_date_time": "8:00 pm on 1 May, 2024",
        },
        "observation": {
            "session_1_observation": {
                "Ilse": [
                    ["Ilse has two beehives, Juno and Bertha.", "D1:1"],
                    ["Ilse's hives stand behind the chapel.", ["D1:3"]],
                ]
            },
            "session_2_observation": {"Tom": [["Tom was stung on the ear in April 2024.", "D2:1"]]},
        },
        "qa": [
            {
                "question": "What are Ilse's hives called?",
                "answer": "Juno and Bertha",
                "evidence": ["D1:1"],
                "category": 4,
            },
            {"question": "When was Tom stung?", "answer": "11 April 2024", "evidence": ["D2:1"], "category": 2},
            {
                "question": "Where are the hives, and what helps against stings?",
                "answer": "Behind the chapel; vinegar",
                "evidence": ["D1:3; D2:2"],
                "category": 1,
            },
            {"question": "How many hives has Tom?", "adversarial_answer": "two", "evidence": ["D1:1"], "category": 5},
        ],
    }
]

LONGMEMEVAL: list[dict[str, Any]] = [
    {
        "question_id": "tea-1",
        "question_type": "single-session-user",
        "question": "Which tea did I order?",
        "answer": "gunpowder green tea",
        "question_date": "2024/06/30 (Sun) 10:00",
        "haystack_session_ids": ["later", "tea"],
        "haystack_dates": ["2024/06/12 (Wed) 08:15", "2024/05/02 (Thu) 19:40"],
        "haystack_sessions": [
            [
                {"role": "user", "content": "How do I clean a kettle?"},
                {"role": "assistant", "content": "With citric acid."},
            ],
            [
                {"role": "user", "content": "I ordered gunpowder green tea.", "has_answer": True},
                {"role": "assistant", "content": "A good choice.", "has_answer": False},
            ],
        ],
        "answer_session_ids": ["tea"],
    },
    {
        "question_id": "dog-2_abs",
        "question_type": "multi-session",
        "question": "What is my dog called?",
        "answer": "You never mentioned a dog.",
        "question_date": "2024/06/30 (Sun) 10:00",
        "haystack_session_ids": ["tea"],
        "haystack_dates": ["2024/05/02 (Thu) 19:40"],
        "haystack_sessions": [[{"role": "user", "content": "I ordered gunpowder green tea."}]],
        "answer_session_ids": ["tea"],
    },
]


def locomo(change: Callable[[Any], Any] = lambda data: None) -> list[dict[str, Any]]:
    data = copy.deepcopy(LOCOMO)
    change(data)
    return data


def longmemeval(change: Callable[[Any], Any] = lambda data: None) -> list[dict[str, Any]]:
    data = copy.deepcopy(LONGMEMEVAL)
    change(data)
    return data


def write(folder: Path, data: Any, name: str = "data.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def memory(**settings: Any) -> Memory:
    return Memory(":memory:", **{"model": None, "embeddings": DeterministicEmbeddings(), **settings})
