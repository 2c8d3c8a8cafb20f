"""The one kind of error that a user can act on."""


class RetrievalError(Exception):
    """Something the user can put right. Its text is one sentence and says what to do.

    The doors (command line, pages, REST) catch it and show that sentence; every other
    exception is a bug and keeps its traceback.
    """
