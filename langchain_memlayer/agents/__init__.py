"""What an agent has of a memory: nodes, tools, middleware, a retriever, and the block that a prompt gets.

surface.py     what all of them share: hearing what was said, and asking a memory that may fail
scope.py       who calls, and which memory is meant
nodes.py       nodes of a LangGraph graph
middleware.py  recall and remembering around `create_agent`; exchange.py what of a turn was said
tools.py       tools for an agent that looks after its memory itself
retriever.py   memories as documents
context.py     memories as a block of text
"""
