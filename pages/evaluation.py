"""Evaluation: how good each method is, for each query and on average."""

from __future__ import annotations

from functools import partial

import streamlit as st

from pages.parts import cards, choose, loaders, notices, own_pictures, query
from pages.parts.downloads import downloads
from pages.parts.evaluation import (
    all_queries,
    average_precision,
    comparison,
    link,
    one_query,
    own_ranking,
    query_chart,
    runs,
    tables,
)
from pages.parts.evaluation.runs import UPLOAD, LabelledRun
from pages.parts.keys import key_about
from pages.parts.plain import plain
from pages.parts.terms import explained
from retrieval import methods
from retrieval.collections.ground_truth import note_on_own_pictures
from retrieval.figures import evaluation as plots

PROTOCOL_RULES = {
    "easy": "Easy: the clearly visible views are right; difficult ones are left out of the score.",
    "medium": "Medium: the clearly visible and the difficult views are right.",
    "hard": "Hard: only the difficult views are right; clearly visible ones are left out.",
    "classic": "Classic: the good and the partly hidden views are right.",
}
state = st.session_state

cards.open_page("Evaluation")
enlarged = state.pop("eval-enlarged", None)

titles = own_pictures.collection_titles()
if not titles:
    with st.expander("Published figures on ROxford5k"):
        tables.show_literature("roxford5k")
    notices.nothing_here()
link.follow_link(titles)
left, right = st.columns([1, 2], gap="medium")
with left:
    name = choose.collection(titles, "eval-collection")
with notices.errors_shown():
    collection = own_pictures.open_collection(name)
own = collection.name == own_pictures.NAME
if not collection.protocols:
    st.info(
        f"There is no ground truth for {collection.title}: no method can be scored, as the right "
        "pictures are not known."
        + (" Search with a picture, switch on “Judge”, and mark the right results." if own else "")
    )
    if own:
        st.page_link(
            "pages/search.py",
            label="Search in my pictures",
            icon=":material/image_search:",
            query_params={"collection": collection.name},
        )
    st.stop()
link.follow_protocol(collection)
right.segmented_control(
    "Protocol",
    collection.protocols,
    format_func=str.capitalize,
    key="eval-protocol",
    required=True,
    help=explained("protocol", "ground truth", "left out of the score"),
    persist_state="session",
)
protocol: str = state["eval-protocol"]
collection_with_boxes = collection
if collection.has_boxes and right.toggle(
    "Without the query boxes",
    key="eval-whole",
    help="Each query is cropped to a box around its landmark. Without the box, the whole picture "
    "is the query.",
    persist_state="session",
):
    collection = collection.without_boxes()
right.caption(
    "What you marked ✓ is right, – is left out of the score, all others are wrong."
    if own
    else PROTOCOL_RULES[protocol]
)
if state.get("eval-of") != collection.name:
    state["eval-of"] = collection.name
    state.pop("eval-query", None)
link.follow_query(collection)
if not collection.has_pictures:
    st.info(f"The pictures of {collection.title} are not on this machine; you see their names.")

labelled_runs, not_evaluated = runs.find_runs(collection)
uploaded = runs.uploaded_run(collection)
if isinstance(uploaded, LabelledRun):
    labelled_runs[UPLOAD] = uploaded

if labelled_runs:
    st.markdown(
        "On this page: [methods](#methods) · [re-ranking](#re-ranking) · [query by query](#queries)"
        " · [one query](#one-query) · [its AP explained](#ap) · [all queries together](#together)"
    )
st.subheader("How good is each method?", anchor="methods", help=explained("checkpoint"))
if labelled_runs:
    st.markdown(
        "Each query gets an **average precision** (AP): 1 if all its right pictures come first, "
        "near 0 if they come last. **mAP** is the mean over the queries; **mP@10** is the share of "
        "right pictures among the first ten. If the last right picture comes before place ten, "
        "only the places up to it count. The table is in per cent."
    )
    without_reranking = [entry for entry in labelled_runs.values() if not entry.then]
    rows = tables.score_rows(without_reranking, collection.protocols)
    numbers = st.column_config.NumberColumn(format="%.2f", alignment="left")
    table = tables.method_rows(rows, protocol)
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        key="scores",
        column_config=tables.column_config(table),
    )
    st.caption(
        f"Measured with this program on {collection.title}, {len(collection.names):,} pictures."
        f"{runs.command_text(collection, without_reranking)} The columns mP@k and Queries "
        f"are for the protocol {protocol.capitalize()}."
        + (f" {own_pictures.judged_text(collection)}." if own else "")
        + (f" {plain(collection.note)}" if collection.note else "")
        + f" {note_on_own_pictures(collection.positions, collection.queries)}".rstrip()
        + (
            runs.scores_with_boxes(collection_with_boxes, labelled_runs.values(), protocol)
            if collection.whole
            else ""
        )
    )
    notes: dict[str, list[str]] = {}
    for entry in labelled_runs.values():
        notes.setdefault(entry.run.note, []).append(entry.label)
    for note, labels in notes.items():
        if note:
            st.caption(f"{plain(', '.join(labels))}: {note}" if len(notes) > 1 else note)
    downloads(
        f"{runs.file_stem(collection)}-scores",
        tables.in_percent(tables.score_rows(labelled_runs.values(), collection.protocols)),
    )
elif not not_evaluated:
    st.info(
        f"There is no index of {collection.title} on this machine yet. This command makes one: "
        f"`python -m retrieval index {collection.name} --method sir`"
    )
for index in not_evaluated:
    runs.offer_evaluation(collection, index)

if labelled_runs:
    st.subheader(
        "What does re-ranking add?",
        anchor="re-ranking",
        help=explained("re-ranker"),
    )
    if reranked_rows := tables.reranking_rows(labelled_runs, protocol):
        st.markdown(
            f"mAP ({protocol.capitalize()}, in per cent) of each method alone and with re-rankers, "
            f"measured with this program on {collection.title}."
        )
        st.dataframe(
            reranked_rows,
            hide_index=True,
            height="content",
            key="reranked",
            placeholder="–",
            column_config=dict.fromkeys(
                [name for row in reranked_rows for name in row if name != "Method"], numbers
            ),
        )
        downloads(
            f"{runs.file_stem(collection)}-{protocol}-reranked",
            tables.reranking_file_rows(reranked_rows, labelled_runs),
        )
    else:
        whole = " and without the query boxes" if collection.whole else ""
        st.markdown(f"Nothing was evaluated with a re-ranker{whole} yet.")
    runs.offer_reranking(collection, labelled_runs)

tables.show_figures_of_others(
    collection,
    {entry.run.record["provenance"]["checkpoint"] for entry in labelled_runs.values()},
)

if not labelled_runs:
    own_ranking.offer_scoring(collection, uploaded)
    st.stop()

st.subheader("Query by query", anchor="queries", help=explained("query", "AP"))
compared, order = comparison.choose(labelled_runs, protocol)

scores = {entry.label: entry.run.scores[protocol] for entry in compared}
query_numbers = [int(n) for n in plots.queries_order(scores, "collection")]
if state.get("eval-query") not in query_numbers:
    if "eval-query" in state:
        st.caption(
            f"That query has no right picture under {protocol.capitalize()}, so it is not scored."
        )
    state["eval-query"] = int(plots.queries_order(scores, "AP")[len(query_numbers) // 2])
number = state["eval-query"]
all_scores = scores | {entry.label: entry.run.scores[protocol] for entry in without_reranking}
query_chart.show_legend(list(all_scores), len(scores))
chart_key = state["eval-chart"] = key_about("eval-chart", collection.name, collection.root)
st.altair_chart(
    query_chart.ap_chart(collection, all_scores, len(scores), order, number),
    key=chart_key,
    on_select=partial(query_chart.open_clicked, chart_key),
    selection_mode="pick",
    alt="Average precision of every query; the list below the chart chooses one as well.",
)
shown = [*compared, *(entry for entry in without_reranking if entry not in compared)]
note = plots.provenance(
    runs.stated_title(collection), protocol, [entry.run.record for entry in shown]
)
st.caption(f"{plain(note)}. Click on a query to open it.")
key = ("queries", collection.name, protocol, order, *(entry.cache_key for entry in shown))
cache = runs.figure_cache(collection, shown)
downloads(
    f"{runs.file_stem(collection)}-{protocol}-queries",
    tables.query_rows(collection, all_scores, plots.queries_order(all_scores, order)),
    lambda kind: loaders.figure_file(
        kind, cache, key, lambda: plots.per_query(all_scores, collection.queries, note, order)
    ),
)

st.container(key=query_chart.QUERY_CONTAINER).subheader("One query", anchor="one-query")
query_column, result_column = st.columns([1, 2], gap="medium")
with query_column:
    st.selectbox(
        "Query",
        query_numbers,
        format_func=query.labels(collection.queries).__getitem__,
        key="eval-query",
        persist_state="session",
    )
    one_query.show_query_picture(collection, number)
    parameters = link.query_parameters(collection, number)
    method = next(iter(compared)).run.record["provenance"]["method"]
    st.page_link(
        "pages/search.py",
        label="Open in search",
        icon=":material/image_search:",
        query_params=parameters
        | {"judge": protocol}
        | ({"method": method} if method in methods.METHODS else {}),
    )
link.write_link(parameters)
with result_column:
    positives = int(next(iter(scores.values())).positives[number])
    many = "picture is" if positives == 1 else "pictures are"
    cards.legend(f"{positives} {many} right for this query ({protocol.capitalize()})")
    for column, entry in zip(st.columns(len(compared)), compared, strict=True):
        with column:
            ap = entry.run.scores[protocol].aps[number]
            st.markdown(f"**{plain(entry.label)}** · AP {ap:.3f}")
            one_query.show_ranked_list(collection, entry, number, protocol, len(compared) == 1)

st.subheader("Explain this AP", anchor="ap")
explained_entry = compared[0]
if len(compared) > 1:
    if state.get("eval-explain") not in [entry.run_id for entry in compared]:
        state["eval-explain"] = compared[0].run_id
    st.segmented_control(
        "Of which method",
        [entry.run_id for entry in compared],
        format_func=lambda name: labelled_runs[name].label,
        key="eval-explain",
        required=True,
        label_visibility="collapsed",
    )
    explained_entry = labelled_runs[state["eval-explain"]]
average_precision.show_explanation(collection, number, protocol, explained_entry)

st.subheader("All queries together", anchor="together")
all_queries.show_all_queries(collection, shown, compared, protocol)

own_ranking.offer_scoring(collection, uploaded)

if enlarged and enlarged[0] == one_query.shown_query(collection, number):
    one_query.show_large(collection, number, *enlarged[1:])
