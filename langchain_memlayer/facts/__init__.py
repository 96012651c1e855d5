"""Turns to facts to decisions: extraction, reconciliation, their prompts, and how replies are read and checked.

chat.py            calls of a chat model for one JSON object
prompts.py         what it is asked
reply_forms.py     what each field of its reply is
replies.py         what it answered
grounding.py       whether a quote stands in its turn
numerals.py        numbers, in digits and in words
wording.py         what texts say beyond their words, and have in common
extraction.py      turns to facts
reconciliation.py  facts to decisions
profile.py         changes of facts to the fields of a profile, as its schema takes them
rewriting.py       a query as it stands in a conversation
"""
