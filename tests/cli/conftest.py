"""A command of the command line, run in this process."""

import pytest

from retrieval import cli


@pytest.fixture
def run(capsys):
    """``run(*words)``: exit code, standard output, standard error."""

    def call(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def refused(run):
    """The command must end with code 1 and one sentence on standard error."""

    def call(words, *command):
        code, out, error = run(*command)
        assert (code, out) == (1, "")
        (line,) = error.splitlines()
        assert line.startswith("error: ")
        assert words in line

    return call
