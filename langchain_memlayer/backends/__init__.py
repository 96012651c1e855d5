"""Any LangChain VectorStore as a generator of candidates."""
