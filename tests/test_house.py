"""How the house is built: what imports what."""

import grimp
import networkx


def test_no_modules_import_each_other_in_a_circle_not_even_for_types() -> None:
    graph = grimp.build_graph("langchain_memlayer", exclude_type_checking_imports=False, cache_dir=None)
    imports = networkx.DiGraph(
        [(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)]
    )
    assert len(imports) > 100
    assert [sorted(circle) for circle in networkx.strongly_connected_components(imports) if len(circle) > 1] == []
