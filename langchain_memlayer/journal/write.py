"""Everything that is written to the journal, inside one transaction.

write_base.py      the transaction, positions, settings, namespaces, events, batches, deferred turns
write_items.py     items of a BaseStore
write_keywords.py  keywords and their statistics
write_memories.py  memories and what links them
write_erasing.py   what is taken out for good
"""

from __future__ import annotations

from langchain_memlayer.journal.write_erasing import ErasingWriter
from langchain_memlayer.journal.write_items import ItemWriter
from langchain_memlayer.journal.write_memories import MemoryWriter


class Writer(ItemWriter, MemoryWriter, ErasingWriter):
    """Writes of one transaction; reads through it see them."""
