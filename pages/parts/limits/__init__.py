"""Limits on what one browser may ask of Streamlit's server, which has no settings for them.

Functions of Streamlit and of its server are replaced; a module that still calls one of them has it
as ``original_…``. ``tests/pages/limits/test_replaced.py`` lists them all, and fails where a new
version of a library has other names or parameters.
"""

from functools import cache

from pages.parts.limits import connections, downloads, logs, messages, runs, uploads
from retrieval import cookies, request_limits


@cache
def set_once() -> None:
    """Set all limits: before the server answers, see app.py, or at the first run of a page."""
    logs.write_plain_text()
    request_limits.allow_many_files()
    connections.accept_few_at_once()
    connections.end_soon()
    connections.keep_many_sessions()
    connections.limit_new_sessions()
    connections.limit_connections()
    connections.limit_messages()
    connections.skip_address_lookup()
    connections.refuse_origins_that_are_none()
    cookies.read_in_linear_time()
    request_limits.limit_forms(max_fields=0)  # an upload is a file and nothing else
    request_limits.answer_in_turn()
    request_limits.answer_once()
    downloads.make_in_turn()
    downloads.limit_kept_files()
    downloads.hash_whole_files()
    downloads.send_uncompressed()
    messages.filter_messages()
    runs.limit_runs()
    runs.send_in_batches()
    uploads.limit_uploads()
    uploads.limit_arriving()
    uploads.read_one_at_a_time()
    uploads.share_bytes()
    uploads.refuse_other_forms()
