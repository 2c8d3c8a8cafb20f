"""Results filtered by what a table beside the pictures says."""

import dataclasses

from search_app import BLUE, RED, archive, bring, encoded, go, hits, picture, start

from pages.parts import loaders

TABLE = "name,colour,note\nred_0.png,warm,<b>*x*</b>\nred_1.png,warm,\nblue_0.png,cold,\n"


def select(app):
    (found,) = (one for one in app.selectbox if one.label == "Only pictures with")
    return found


def test_results_are_filtered_by_what_a_table_says(nothing_installed):
    pictures = {f"{name}_png": encoded(picture(colour)) for name, colour in
                (("red_0", RED), ("red_1", (190, 40, 30)), ("blue_0", BLUE))}  # fmt: skip
    app = start()
    files = app.file_uploader(key="own_files")
    files.upload("mine.zip", archive(**pictures), "application/zip")
    files.upload("what I know.csv", TABLE.encode(), "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    app.selectbox(key="database").select("mine/red_0.png").run()
    assert len(hits(app)) == 2

    select(app).select('colour == "cold"').run()
    assert not app.exception, app.exception
    assert hits(app) == ["1: blue_0.png"]
    assert "where" not in app.query_params  # of a visitor's own pictures
    app.button(key="clear-where").click().run()
    assert len(hits(app)) == 2

    app.selectbox(key="database").select("mine/blue_0.png").run()
    app.button(key="open-cnn-irwnha-1").click().run()
    assert any("colour **warm** · note **\\<b\\>" in one.value for one in app.caption)


def test_other_pictures_are_not_filtered_by_what_was_asked_of_those_before(nothing_installed):
    app = start()
    files = app.file_uploader(key="own_files")
    pictures = {f"{name}_png": encoded(picture(colour)) for name, colour in
                (("red_0", RED), ("red_1", (190, 40, 30)), ("blue_0", BLUE))}  # fmt: skip
    files.upload("mine.zip", archive(**pictures), "application/zip")
    files.upload("table.csv", TABLE.encode(), "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    select(app).select('colour == "cold"').run()
    left = select(app)._widget_state
    bring(app, "others.zip", archive(**pictures))
    app.selectbox(key="database").select("others/red_0.png").run()
    assert not app.error, app.error[0].value
    assert len(hits(app)) == 2
    files = app.file_uploader(key="own_files")
    files.upload("others.zip", archive(**pictures), "application/zip")
    files.upload("table.csv", b"name,size\nred_0.png,1\nred_1.png,2\nblue_0.png,3\n", "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    # A click on the former page, while this one is on its way, brings the former filter.
    late = app._tree.get_widget_states()
    late.widgets.append(left)
    app._run(late)
    assert app.session_state["where"] == "" == select(app).value


def test_a_filter_comes_with_a_link(little, monkeypatch):
    table = {name: {"size": len(name)} for name in little.collection.names}
    known = dataclasses.replace(little.collection, metadata=table)
    monkeypatch.setattr(loaders, "collection", lambda name: known)
    app = go(start(collection="little", where="size < 11", method="sir", query="ask.png"))
    assert len(hits(app, "sir")) == 8  # red and blue
    assert app.query_params["where"] == "size < 11"
    assert "AP" not in next(one.value for one in app.markdown if one.value.startswith("#### SIR"))
    app = go(start(collection="little", where="gone == 1", method="sir", query="ask.png"))
    assert "There is no column gone" in app.error[0].value


def test_every_column_can_be_filtered_by(nothing_installed):
    """Words of Python, and letters that it reads as others, were offered and not understood."""
    table = "name,class,ﬁeld\nred.png,warm,1\nblue.png,cold,2\n"
    app = start()
    files = app.file_uploader(key="own_files")
    for name, colour in (("red", RED), ("blue", BLUE)):
        files.upload(f"{name}.png", encoded(picture(colour)), "image/png")
    files.upload("table.csv", table.encode(), "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    app.selectbox(key="database").select("red.png").run()
    assert select(app).options[1:] == [
        "class: cold", "class: warm", "field: 1", "field: 2"]  # fmt: skip
    for where in ('_class == "cold"', "field == 2"):
        select(app).select(where).run()
        assert not app.error
        assert hits(app) == ["1: blue.png"]


def test_two_tables_are_one_too_many(nothing_installed):
    app = start()
    files = app.file_uploader(key="own_files")
    for name in ("a.csv", "b.json"):
        files.upload(name, b"name\n", "text/csv")
    app.run()
    app.button(key="own_index").click().run()
    assert "Bring one table" in app.error[0].value
