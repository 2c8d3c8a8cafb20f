"""A small language to filter pictures by their metadata: ``landmark == "chapel" and year < 1910``.

It is a part of Milvus's own language. A store gets only filters of this language, written from the
parsed tree and not copied from the text: in ``milvus-lite`` a filter with ``like`` can compute for
ever, and one with ``*`` can take all memory.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from typing import Any

from retrieval.collections.metadata import Metadata, Values
from retrieval.errors import RetrievalError
from retrieval.text import one_line

MAX_LENGTH = 1000  # characters


def matching(metadata: Metadata, where: str) -> set[str]:
    """Names of the pictures that fit a filter.

    where: comparisons of a column with a value (``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``,
    ``in``), joined by ``and``, ``or``, ``not`` and brackets. A picture without a value in the
    column, or with text where the filter has a number, fits neither a comparison nor its negation.
    Raises RetrievalError for anything else, and for columns that no picture has.
    """
    known = {column for values in metadata.values() for column in values}
    test = _test(_plain(where), known)
    return {name for name, values in metadata.items() if test(values)}


def count_values(where: str) -> int:
    """How many values a filter compares with a column, for each picture.

    Raises RetrievalError for a text that ``matching`` refuses whatever columns there are.
    """
    return sum(isinstance(node, ast.Constant) for node in ast.walk(_plain(where)))


def for_store(where: str) -> str:
    """The filter as text for a store, which gives the same pictures for it as ``matching``.

    Raises RetrievalError for a text that ``matching`` refuses whatever columns there are.
    """
    tree = _plain(where)
    try:
        return ast.unparse(tree)
    except RecursionError as error:
        raise _refused(where) from error


# Operator → its function, and the operator of the negation.
_COMPARE: dict[type[ast.cmpop], tuple[Callable[[Any, Any], bool], type[ast.cmpop]]] = {
    ast.Eq: (operator.eq, ast.NotEq),
    ast.NotEq: (operator.ne, ast.Eq),
    ast.Lt: (operator.lt, ast.GtE),
    ast.LtE: (operator.le, ast.Gt),
    ast.Gt: (operator.gt, ast.LtE),
    ast.GtE: (operator.ge, ast.Lt),
    ast.In: (lambda value, values: value in values, ast.NotIn),
    ast.NotIn: (lambda value, values: value not in values, ast.In),
}
FORM = 'write it as landmark == "chapel" and year < 1910'


def _refused(where: str) -> RetrievalError:
    return RetrievalError(f"The filter {one_line(where, 100)} is not understood: {FORM}.")


def _plain(where: str) -> ast.expr:
    """A filter as a tree of comparisons, ``and`` and ``or``. The text is parsed, never executed.

    ``not`` and ``!=`` are replaced, and each ``not in`` is joined by ``and`` to a ``<`` or ``>``:
    else milvus-lite also gives pictures without the value, or with text in place of a number.
    """
    refused = _refused(where)
    if len(where) > MAX_LENGTH:
        raise RetrievalError(f"A filter has at most {MAX_LENGTH} characters; write a shorter one.")

    def plain(node: ast.AST, opposite: bool) -> ast.expr:
        if isinstance(node, ast.BoolOp):
            join = ast.And if isinstance(node.op, ast.And) != opposite else ast.Or
            return ast.BoolOp(join(), [plain(operand, opposite) for operand in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return plain(node.operand, not opposite)
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            kind = type(node.ops[0])
            kind = _COMPARE[kind][1] if opposite else kind
            return comparison(node.left, kind, node.comparators[0])
        raise refused

    def comparison(left: ast.AST, kind: type[ast.cmpop], right: ast.AST) -> ast.expr:
        if not isinstance(left, ast.Name):
            raise refused
        if kind is ast.NotEq:
            both = [comparison(left, operator, right) for operator in (ast.Lt, ast.Gt)]
            return ast.BoolOp(ast.Or(), both)
        if kind not in (ast.In, ast.NotIn):
            return ast.Compare(left, [kind()], [value(right)])
        if not isinstance(right, ast.List | ast.Tuple) or not right.elts:
            raise refused
        values = ast.List([value(element) for element in right.elts])
        among = ast.Compare(left, [kind()], [values])
        if kind is ast.In:
            return among
        return ast.BoolOp(ast.And(), [comparison(left, ast.NotEq, right.elts[0]), among])

    def value(node: ast.AST) -> ast.Constant:
        if isinstance(node, ast.Constant) and type(node.value) in (str, int, float):
            if isinstance(node.value, str):
                return ast.Constant(one_line(node.value))  # as in a table
            return ast.Constant(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = value(node.operand).value
            if not isinstance(number, str):
                return ast.Constant(0 - number)  # type: ignore[operator]
        raise refused

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts like "1 is 1"
            tree = ast.parse(where.strip(), mode="eval")
        return plain(tree.body, False)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise refused from error


def _test(node: ast.expr, known: set[str]) -> Callable[[Values], bool]:
    """A function that tells whether the values of a picture fit a filter.

    node: from ``_plain``. known: columns. Raises RetrievalError for a column that is not known.
    """
    if isinstance(node, ast.BoolOp):
        parts = [_test(operand, known) for operand in node.values]
        join = all if isinstance(node.op, ast.And) else any
        return lambda values: join(part(values) for part in parts)
    assert isinstance(node, ast.Compare)
    assert isinstance(node.left, ast.Name)
    column, compare = node.left.id, _COMPARE[type(node.ops[0])][0]
    if column not in known:
        columns = ", ".join(sorted(known)) or "none"
        raise RetrievalError(f"There is no column {one_line(column, 50)}; there are: {columns}.")
    operand = ast.literal_eval(node.comparators[0])
    operands = operand if isinstance(operand, list) else [operand]
    are_text = {isinstance(item, str) for item in operands}

    def fits(values: Values) -> bool:
        value = values.get(column)
        return value is not None and isinstance(value, str) in are_text and compare(value, operand)

    return fits
