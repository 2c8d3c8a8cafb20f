from retrieval.cli.output import DownloadBar


def test_a_download_bar_follows_a_restart_and_the_next_file(capsys):
    with DownloadBar() as bar:
        for done, total, name in ((10, 100, "a"), (60, 100, "a"), (5, 100, "a"), (1, None, "b")):
            bar.update(done, total, name)
            assert (bar.bytes_so_far, bar.name) == (done, name)
        bar.say("done")
    assert capsys.readouterr().out == "done\n"
