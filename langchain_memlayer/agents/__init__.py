"""What an agent has of a memory: nodes, tools, middleware, a retriever, and the block that a prompt gets."""
