"""A small language to filter pictures by their metadata: ``landmark == "chapel" and year < 1910``.

It is a part of what a store in Milvus understands too, and the only one that stores are sent: in
``milvus-lite`` one filter with ``like`` computes for ever, one with ``*`` takes all memory.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from typing import Any

from retrieval.collections.credits import one_line
from retrieval.collections.metadata import Metadata, Value, Values
from retrieval.errors import RetrievalError

MAX_LENGTH = 1000  # characters


def matching(metadata: Metadata, where: str) -> set[str]:
    """Names of the pictures that fit a filter.

    where: comparisons of a column with a value (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``,
    ``in``), joined by ``and``, ``or``, ``not`` and brackets. A picture without that value, or with
    text where the filter has a number, fits no comparison.
    Raises RetrievalError for anything else, and for columns that no picture has.
    """
    known = {column for values in metadata.values() for column in values}
    test = _parsed(where, known)
    return {name for name, values in metadata.items() if test(values)}


def check(where: str) -> None:
    """Raises RetrievalError for a text that ``matching`` would refuse whatever the columns are."""
    _parsed(where, None)


_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}
FORM = 'write it as landmark == "chapel" and year < 1910'


def _parsed(where: str, known: set[str] | None) -> Callable[[Values], bool]:
    """A function that tells whether values fit. Nothing of the text is ever executed.

    known: the columns that there are; None for any.
    """
    refused = RetrievalError(f"The filter {one_line(where, 100)} is not understood: {FORM}.")
    if len(where) > MAX_LENGTH:
        raise RetrievalError(f"A filter has at most {MAX_LENGTH} characters.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts like "1 is 1"
            tree = ast.parse(where.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise refused from error

    def test(node: ast.AST) -> Callable[[Values], bool]:
        if isinstance(node, ast.BoolOp):
            parts = [test(one) for one in node.values]
            join = all if isinstance(node.op, ast.And) else any
            return lambda values: join(part(values) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = test(node.operand)
            return lambda values: not inner(values)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return comparison(node.left, type(node.ops[0]), node.comparators[0])
        raise refused

    def comparison(left: ast.AST, kind: type, right: ast.AST) -> Callable[[Values], bool]:
        if not isinstance(left, ast.Name) or kind not in _COMPARE:
            raise refused
        if known is not None and left.id not in known:
            there = ", ".join(sorted(known)) or "none"
            raise RetrievalError(f"There is no column {one_line(left.id, 50)}; there are: {there}.")
        column, compare = left.id, _COMPARE[kind]
        many = kind in (ast.In, ast.NotIn)
        if many != isinstance(right, ast.List | ast.Tuple):
            raise refused
        wanted = [value(one) for one in (right.elts if many else [right])]  # type: ignore[attr-defined]
        text = {isinstance(one, str) for one in wanted}

        def fits(values: Values) -> bool:
            found = values.get(column)
            if found is None or isinstance(found, str) not in text:
                return False
            return compare(found, wanted if many else wanted[0])

        return fits

    def value(node: ast.AST) -> Value:
        if isinstance(node, ast.Constant) and type(node.value) in (str, int, float):
            return node.value  # type: ignore[return-value]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = value(node.operand)
            if not isinstance(number, str):
                return -number
        raise refused

    try:
        return test(tree.body)
    except RecursionError as error:  # nested hundreds of levels deep
        raise refused from error
