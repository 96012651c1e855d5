"""The graph of a large scope, of which only what reads visit is asked of the database and kept.

Which names are one entity is decided within a family, by its names and the triples between them; so a family, and the
neighbours of each of its names, are read and known by themselves. A read asks level by level for what was not met yet:
one statement for the neighbours of all names of a level, one for the families of these. The answers are those of a
`TripleGraph` that has just been loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from langchain_memlayer.graph.edges import Edge, Node, Placed, StoredTriple, edge_of
from langchain_memlayer.graph.names import (
    MOST_NAMESAKES,
    Similarity,
    code_of,
    family_of,
    mentions,
    read_name,
    relation_name,
    says_same,
)
from langchain_memlayer.graph.reading import EPS, MOST_EDGES, GraphReader

MOST_BYTES = 50_000_000
"""When a graph keeps about so much, it begins anew."""

_MOST_NEIGHBOURS = round(1 / EPS)
_NAME_BYTES = 600
_NEIGHBOUR_BYTES = 120
_EDGE_BYTES = 800
_AT_ONCE = 64

Key = tuple[int, int]
"""The codes (`names.code_of`) of a name's key and of its family."""

Pair = tuple[int, int]
"""The codes of two names' keys."""


class Asked(Protocol):
    """A scope's triples in a database, as of one moment; see `journal.postgres_triples.ScopeTriples`."""

    def position(self) -> int: ...  # noqa: D102 - described there

    def families_changed(self, since: int) -> set[int] | None: ...  # noqa: D102

    def families(self, families: Sequence[int], *, most: int) -> list[tuple[Any, ...]]: ...  # noqa: D102

    def firsts(self, keys: Iterable[Key]) -> list[tuple[Any, ...]]: ...  # noqa: D102

    def around(self, keys: Iterable[Key], *, most: int) -> Iterator[tuple[Any, ...]]: ...  # noqa: D102

    def latest(self, keys: Iterable[Key], *, most: int) -> list[tuple[Any, ...]]: ...  # noqa: D102

    def edges(self, pairs: Sequence[Pair], *, most: int) -> list[tuple[int, StoredTriple]]: ...  # noqa: D102

    def between(self, sources: Sequence[int], destinations: Sequence[int], *, most: int) -> list[int]: ...  # noqa: D102

    def alike(self, keys: Iterable[Key], relation: int, *, most: int) -> list[int]: ...  # noqa: D102


@dataclass(slots=True)
class _Side:
    """The neighbours of a name in one direction.

    Attributes:
        many: How many there are; of more than `_MOST_NEIGHBOURS`, at least so many.
        first: By neighbour the first triple that leads there, the latest of these first; of too many, none before they
            are asked for.
        whole: Whether those are all.
    """

    many: int = 0
    first: dict[Key, int] = field(default_factory=dict)
    whole: bool = True


@dataclass(slots=True)
class _Family:
    """Names that share their first word.

    Attributes:
        met: Whether it is known which names there are, or that they are too many to be one another's.
        whole: Whether `keys` has all of them.
        keys: The known names by their codes.
        around: By code the neighbours that triples lead to from that name, and those that they come from.
        edges: The triples between one of the names and a neighbour, by the codes of source and destination.
    """

    met: bool = False
    whole: bool = False
    keys: dict[int, str] = field(default_factory=dict)
    around: dict[int, tuple[_Side, _Side]] = field(default_factory=dict)
    edges: dict[Pair, list[StoredTriple]] = field(default_factory=dict)


class SQLGraph(GraphReader):
    """The triples of the live memories of one scope, read where they are visited. Safe to use from several threads.

    Args:
        ask: Opens the scope's triples.
        similarity: How alike two names are in meaning, from 0 to 1, to propose which are one entity.
    """

    def __init__(
        self, ask: Callable[[], AbstractContextManager[Asked]], *, similarity: Similarity | None = None
    ) -> None:
        super().__init__(similarity)
        self._ask = ask
        self._position: int | None = None
        self._forget_all()

    @property
    def nbytes(self) -> int:
        """About how many bytes it keeps."""
        return self._nbytes

    def close(self) -> None:
        """Nothing to let go of: caches close what they drop."""

    # -- following the journal ------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, self._ask() as asked:
            self._catch_up(asked)
            self._triples = asked
            yield

    def _catch_up(self, asked: Asked) -> None:
        """Drop what is not as it was when it was read."""
        position = asked.position()
        if self._position is not None and position != self._position:
            changed = asked.families_changed(self._position)
            for family in changed or ():
                self._forget(family)
            if changed is None:
                self._forget_all()
        if self._nbytes > MOST_BYTES:
            self._forget_all()
        self._position = position

    def _forget_all(self) -> None:
        self._families: dict[int, _Family] = {}
        self._nodes: dict[str, Node] = {}
        self._groups = {}
        self._nbytes = 0

    def _forget(self, family: int) -> None:
        known = self._families.pop(family, None)
        if known is not None:
            for key in known.keys.values():
                self._nodes.pop(key, None)
                self._groups.pop(key, None)

    # -- who is who -----------------------------------------------------------------------------------------------

    # Of a family that is not met no entity is among those that a read began with or walked through.

    def _mentioned(self, text: str) -> list[str]:
        possible: dict[str, None] = {}

        def note(key: str) -> bool:
            possible[key] = None
            return False

        mentions(text, note)
        found = frozenset(self._met(possible))
        return mentions(text, found.__contains__)

    def _met(self, keys: Iterable[str]) -> list[str]:
        wanted = list(keys)
        coded = {key: _coded(key) for key in wanted if key}
        new = [both for both in coded.values() if not self._is_met(both[1])]
        # One name of a family that nobody has met is looked for first: most words of a text are no names.
        there = {code for code, *_ in self._triples.firsts(new)} if new else set()
        self._meet(family for code, family in coded.values() if code in there)
        self._learn(both for both in coded.values() if self._is_met(both[1]))
        return [key for key in wanted if key in coded and self._key(coded[key]) == key]

    def _is_met(self, family: int) -> bool:
        return family in self._families and self._families[family].met

    def _key(self, name: Key) -> str | None:
        """The key of a name, if it is known."""
        family = self._families.get(name[1])
        return None if family is None else family.keys.get(name[0])

    def _meet(self, families: Iterable[int]) -> None:
        """Find out which names some families have, and which of these are one entity."""
        new = [family for family in dict.fromkeys(families) if not self._is_met(family)]
        if not new:
            return
        spelled: dict[int, list[tuple[Any, ...]]] = {family: [] for family in new}
        related: dict[int, set[frozenset[int]]] = {family: set() for family in new}
        for family, code, other, triple, side, text in self._triples.families(new, most=MOST_NAMESAKES + 1):
            if other is None:
                spelled[family].append((code, triple, side, text))
            elif not says_same(relation_name(text)):
                related[family].add(frozenset((code, other)))
        for number, rows in spelled.items():
            family = self._families.setdefault(number, _Family())
            family.met = True
            family.whole = len({row[0] for row in rows}) <= MOST_NAMESAKES
            if family.whole:
                self._spell(number, rows)
                self._group(family, related[number])

    def _learn(self, names: Iterable[Key]) -> None:
        """Find out how some names are spelled, if they are there at all."""
        new = [both for both in dict.fromkeys(names) if not self._is_whole(both[1]) and self._key(both) is None]
        if not new:
            return
        families = dict(new)
        spelled: dict[int, list[tuple[Any, ...]]] = {}
        for row in self._triples.firsts(new):
            spelled.setdefault(families[row[0]], []).append(row)
        for family, rows in spelled.items():
            self._families.setdefault(family, _Family())
            self._spell(family, rows)

    def _is_whole(self, family: int) -> bool:
        return self._is_met(family) and self._families[family].whole

    def _spell(self, family: int, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take in names of a family, as (code, triple, side, spelling); each is shown as its first triple spells it."""
        keys = self._families[family].keys
        first: dict[int, tuple[int, int, str]] = {}
        for code, triple, side, spelling in rows:
            first[code] = min(first.get(code, (triple, side, spelling)), (triple, side, spelling))
        for code, (triple, _, spelling) in first.items():
            keys[code] = key = read_name(spelling).key
            self._nodes[key] = {"name": spelling, "first": triple}
        self._nbytes += len(first) * _NAME_BYTES

    def _group(self, family: _Family, related: Collection[frozenset[int]]) -> None:
        codes = {key: code for code, key in family.keys.items()}

        def apart(one: str, other: str) -> bool:
            return frozenset((codes[one], codes[other])) in related

        self._merge(codes, apart)

    def _node(self, key: str) -> Node:
        return self._nodes[key]

    def _names(self, leader: str) -> list[Key]:
        """All names of an entity."""
        return [_coded(key) for key in self._groups.get(leader, (leader,))]

    # -- what is next to it ---------------------------------------------------------------------------------------

    def _sides(self, leader: str) -> Iterator[tuple[Key, bool, _Side]]:
        """The neighbours of each name of an entity in each direction, in the order in which they are walked."""
        self._look([leader])
        for name in self._names(leader):
            forth, back = self._families[name[1]].around[name[0]]
            yield name, True, forth
            yield name, False, back

    def _is_looked_at(self, leader: str) -> bool:
        return all(code in self._families[family].around for code, family in self._names(leader))

    def _look(self, leaders: Iterable[str]) -> None:
        """Read how many neighbours some entities have, and which, unless they have too many."""
        new = {
            name: (_Side(), _Side())
            for leader in leaders
            for name in self._names(leader)
            if name[0] not in self._families[name[1]].around
        }
        if not new:
            return
        families = dict(new.keys())
        for code, forth, many, others, kin, firsts in self._triples.around(new, most=_MOST_NEIGHBOURS):
            side = new[code, families[code]][0 if forth else 1]
            if others is None or not side.whole:
                side.many, side.whole, side.first = max(side.many, many), False, {}
                continue
            for other, family, first in zip(others, kin, firsts, strict=True):
                side.first[other, family] = min(first, side.first.get((other, family), first))
            side.many = len(side.first)
            self._nbytes += len(others) * _NEIGHBOUR_BYTES
        for (code, family), both in new.items():
            for side in both:
                side.first = _late_first(side.first)
            self._families[family].around[code] = both

    def _reach(self, leaders: Iterable[str]) -> None:
        """Read the neighbours of entities that have too many to be walked through, as far as anybody looks at them."""
        unread = [
            (name, forth, side)
            for leader in leaders
            for name, forth, side in self._sides(leader)
            if not side.whole and not side.first
        ]
        if not unread:
            return
        sides = {(name[0], forth): side for name, forth, side in unread}
        found: dict[tuple[int, bool], dict[Key, int]] = {place: {} for place in sides}
        names = dict.fromkeys(name for name, _, _ in unread)
        for code, forth, other, family, first in self._triples.latest(names, most=MOST_EDGES):
            if (code, forth) in found:
                found[code, forth][other, family] = first
        for place, firsts in found.items():
            sides[place].first = dict(islice(_late_first(firsts).items(), MOST_EDGES))
            self._nbytes += len(sides[place].first) * _NEIGHBOUR_BYTES

    def _walk_ahead(self, leaders: Sequence[str], most: int) -> None:
        """Read the first neighbours of some entities, `most` of each, and who they are."""
        self._look(leaders)
        self._reach(leaders)
        near = dict.fromkeys(name for leader in leaders for name in islice(self._next_to(leader), most))
        self._meet(family for _, family in near)
        self._learn(near)

    def _push_ahead(self, waiting: Mapping[str, float]) -> None:
        """Read what `local_push` does next: the degrees of what waits, and the neighbours of what is pushed on."""
        self._look(waiting)
        ready = [leader for leader, has in waiting.items() if has >= EPS * max(self._degree(leader), 1)]
        self._walk_ahead(ready, _MOST_NEIGHBOURS)

    def _next_to(self, leader: str) -> Iterator[Key]:
        for _, _, side in self._sides(leader):
            yield from side.first

    def _neighbours(self, leader: str) -> Iterator[str]:
        for name in self._next_to(leader):
            if not self._is_met(name[1]) or self._key(name) is None:
                self._walk_ahead([leader], _MOST_NEIGHBOURS)
            yield self._leader(self._families[name[1]].keys[name[0]])

    def _degree(self, leader: str) -> int:
        return sum(side.many for _, _, side in self._sides(leader))

    # -- triples --------------------------------------------------------------------------------------------------

    def _edges_around(self, leaders: Iterable[str], most: int) -> Iterator[Placed]:
        left = list(leaders)
        pairs: list[tuple[str, int, Pair]] = []
        while left and len(pairs) < most:
            # Each pair has a triple at least; what is behind that many is not looked at.
            if not self._is_looked_at(left[0]):
                self._look(left[:_AT_ONCE])
            leader = left.pop(0)
            self._reach([leader])
            for (code, family), forth, side in self._sides(leader):
                pairs += ((leader, family, (code, other) if forth else (other, code)) for other, _ in side.first)
        found = self._edges_of(pairs[:most], most)
        placed = ((leader, row) for leader, family, pair in pairs[:most] for row in found.get((family, pair), ()))
        for leader, row in islice(placed, most):
            yield leader, row, read_name(row[3]).key, read_name(row[5]).key

    def _edges_of(
        self, pairs: Sequence[tuple[str, int, Pair]], most: int
    ) -> dict[tuple[int, Pair], Sequence[StoredTriple]]:
        """The triples of pairs, each under the family that is walked from; of the last pairs none, behind `most`."""
        found: dict[tuple[int, Pair], Sequence[StoredTriple]] = {}
        new: dict[tuple[int, Pair], None] = {}
        left = most
        for _, family, pair in pairs:
            if left <= 0:
                break
            known = self._families[family].edges.get(pair)
            if known is None:
                new[family, pair] = None
            else:
                found[family, pair] = known
            left -= 1 if known is None else len(known)
        if not new:
            return found
        fresh: dict[tuple[int, Pair], list[StoredTriple]] = {}
        rows = self._triples.edges([pair for _, pair in new], most=most)
        places = list(new)
        for place, row in rows:
            fresh.setdefault(places[place], []).append(row)
        for at, ((family, pair), between) in enumerate(fresh.items(), 1):
            # Of the last pair there may be more.
            if at < len(fresh) or len(rows) < most or len(between) == most:
                self._families[family].edges[pair] = between
        self._nbytes += len(rows) * _EDGE_BYTES
        return {**found, **fresh}

    def _edges(self, placed: Sequence[Placed]) -> list[Edge]:
        self._learn(_coded(key) for _, _, u, v in placed for key in (u, v))
        return [edge_of(row, self._nodes[u], self._nodes[v]) for _, row, u, v in placed]

    def _stating(self, source: str, ends: Collection[str], relation: str, most: int) -> tuple[list[int], list[int]]:
        names = self._names(source)
        others = [code for end in ends for code, _ in self._names(end)]
        between = self._triples.between([code for code, _ in names], others, most=most) if others else []
        return between, self._triples.alike(names, code_of(relation), most=most)


def _coded(key: str) -> Key:
    return code_of(key), code_of(family_of(key))


def _late_first(firsts: Mapping[Key, int]) -> dict[Key, int]:
    return dict(sorted(firsts.items(), key=lambda pair: -pair[1]))
