"""How well a memory recalls and answers, on conversations with questions.

    from langchain_memlayer import Memory
    from langchain_memlayer.evaluation import evaluate_memory, load_locomo

    result = evaluate_memory(lambda: Memory(":memory:", model=None), load_locomo("locomo10.json"))
    print(result.to_markdown())

data.py        conversations, turns and questions as frozen types
loaders.py     LoCoMo, LongMemEval and plain files to these
metrics.py     measures of a ranking, and confidence intervals
plain.py       cosine, BM25 and their mixes, to compare with
judging.py     answers from memories, verdicts on answers
asker.py       one question: remember, recall, answer, judge
evaluate.py    all questions, locally
experiment.py  all questions, as an experiment in LangSmith
usage.py       calls and tokens of chat models
results.py     what came out, as values and as Markdown
"""

from langchain_memlayer.evaluation.data import Conversation, Dataset, Observation, ObservedFacts, Question
from langchain_memlayer.evaluation.evaluate import evaluate_memory
from langchain_memlayer.evaluation.judging import Answerer, Judge, Verdict
from langchain_memlayer.evaluation.loaders import load_locomo, load_longmemeval, load_scopes
from langchain_memlayer.evaluation.metrics import Estimate
from langchain_memlayer.evaluation.results import EvaluationResult, Hit, Outcome, Usage

__all__ = [
    "Answerer",
    "Conversation",
    "Dataset",
    "Estimate",
    "EvaluationResult",
    "Hit",
    "Judge",
    "Observation",
    "ObservedFacts",
    "Outcome",
    "Question",
    "Usage",
    "Verdict",
    "evaluate_memory",
    "load_locomo",
    "load_longmemeval",
    "load_scopes",
]
