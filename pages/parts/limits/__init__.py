"""Limits on what one browser may ask of Streamlit's server, which has no settings for them.

Streamlit's own functions are replaced. A test of each limit fails where they get other names.
"""

from functools import cache

from pages.parts.limits import connections, downloads, messages, runs, uploads
from retrieval import cookies, request_limits


@cache
def set_once() -> None:
    """Set all limits, at the first run of a page."""
    connections.allow_many()
    connections.open_slowly()
    connections.limit_connections()
    connections.limit_messages()
    connections.ask_nobody_for_our_address()
    cookies.read_in_linear_time()
    request_limits.limit_forms()
    request_limits.answer_in_turn()
    downloads.make_in_turn()
    downloads.keep_a_while()
    downloads.send_uncompressed()
    messages.ignore_some()
    runs.run_few_pages()
    runs.send_in_batches()
    uploads.keep_few()
    uploads.read_forms_as_utf8()
