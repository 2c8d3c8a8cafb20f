import tracemalloc

from retrieval.cli import output
from retrieval.cli.output import DownloadBar


def test_a_download_bar_follows_a_restart_and_the_next_file(capsys):
    with DownloadBar() as bar:
        for done, total, name in ((10, 100, "a"), (60, 100, "a"), (5, 100, "a"), (1, None, "b")):
            bar.update(done, total, name)
            assert (bar.bytes_so_far, bar.name) == (done, name)
        bar.say("done")
    assert capsys.readouterr().out == "done\n"


def test_a_log_gets_lines_of_progress(capsys, monkeypatch):
    monkeypatch.setattr(output, "DELAY", 0.0)
    monkeypatch.setattr(output, "LOG_INTERVAL", 0.0)
    with output.Bar(2, "query") as bar:
        bar.update(1, 2, "a.jpg")
        assert "1/2" in capsys.readouterr().err
        bar.say("epoch 1")
    written = capsys.readouterr()
    assert written.out == "epoch 1\n"


def test_control_characters_of_a_long_name_take_little():
    """Twenty MB of them, as the name of a collection, took 32 s and 1.5 GB in ``info``."""
    assert output.printable("a\x1b\x7f\x9f\n\xa0é") == r"a\x1b\x7f\x9f\n" + "\xa0é"
    tracemalloc.start()
    assert output.printable("\x7f" * 1_000_000) == r"\x7f" * 1_000_000
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
