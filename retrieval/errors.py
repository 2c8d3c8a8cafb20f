"""The one kind of error that a user can act on."""


class RetrievalError(Exception):
    """Something the user can put right. Its text is one sentence and says what to do.

    Command line, pages and REST service catch it and show that sentence. Every other exception is
    a bug and keeps its traceback.
    """
