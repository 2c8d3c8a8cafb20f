"""Limits on what one browser may ask of Streamlit's server, which has no settings for them.

Streamlit's own functions are replaced. A test of each limit fails where they get other names.
"""

from functools import cache

from pages.parts.limits import connections, downloads, messages, runs, uploads
from retrieval import cookies, request_limits


@cache
def set_once() -> None:
    """Set all limits, at the first run of a page."""
    request_limits.allow_many_files()
    connections.keep_many_sessions()
    connections.limit_new_sessions()
    connections.limit_connections()
    connections.limit_messages()
    connections.skip_address_lookup()
    cookies.read_in_linear_time()
    request_limits.limit_forms()
    request_limits.answer_in_turn()
    downloads.make_in_turn()
    downloads.limit_kept_files()
    downloads.send_uncompressed()
    messages.filter_messages()
    runs.limit_runs()
    runs.send_in_batches()
    uploads.limit_uploads()
    uploads.read_forms_as_utf8()
