"""Evaluation: how good each method is, query by query, and where every number comes from."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import altair
import streamlit as st
from PIL import Image, ImageDraw

from pages.parts import cards, loaders, query
from pages.parts.downloads import as_csv, download, downloads, figure
from pages.parts.evaluation import average_precision
from pages.parts.evaluation.average_precision import RULES
from retrieval import index, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import PROTOCOLS, Scores, explain, published, submissions
from retrieval.evaluation.runs import Run
from retrieval.figures import evaluation as plots

NOTHING, UPLOAD = "nothing", "upload"
SHOWN = 12, 8  # pictures of a ranked list: of one method, of two side by side
EDGE = 5  # hardest and easiest queries
TOGETHER = ("Precision and recall", "Distribution", "Landmarks", "Hardest and easiest")
ORDERS = {"collection": "Landmark", "AP": "AP", "difference": "Difference"}
SORTED = {
    "collection": "landmark, as in the collection",
    "AP": "AP of the first method, the best first",
    "difference": "the first method's lead over the second",
}
state = st.session_state


@dataclass(frozen=True)
class Measured:
    """A run on show. id: in the address. label: unlike that of any other run here."""

    id: str
    label: str
    run: Run

    @property
    def key(self) -> str:
        """Stands for its numbers."""
        return f"{self.id} {self.run.record['made']}"


# ---- the view is in the address ------------------------------------------------------------------


def follow_link(shelf: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    asked = query.newly_asked(shelf, "eval-link", "eval-collection")
    if not asked:
        return
    if asked.get("protocol") in PROTOCOLS:
        state["eval-protocol"] = asked["protocol"]
    for key in ("method", "against"):
        if key in asked:
            state[f"eval-{key}"] = asked[key]
    state["eval-asked"] = (asked["query"], asked.get("box", "")) if "query" in asked else None


def follow_query(collection: Collection) -> None:
    """The rest of a link, which needs the collection: the query."""
    asked = state.pop("eval-asked", None)
    if not asked:
        return
    name, box = asked
    same = [n for n, one in enumerate(collection.queries) if one.name == name]
    if same:
        state["eval-query"] = min(
            same, key=lambda n: query.written(collection.queries[n].box) != box
        )
    else:
        st.warning(f"This link asks for {cards.plain(name)}, which is no query here.")


def view_of(collection: Collection, number: int) -> dict[str, str]:
    """Collection and query, as the address of this page and of the search page has them."""
    asked = collection.queries[number]
    view = {"collection": collection.name, "query": asked.name}
    return view | ({"box": query.written(asked.box)} if asked.box else {})


def write_link(view: Mapping[str, str]) -> None:
    link = {
        **view,
        "protocol": state["eval-protocol"],
        "method": state["eval-method"],
        "against": state["eval-against"],
    }
    state["eval-link"] = link
    if link != st.query_params.to_dict():
        st.query_params.from_dict(link)


# ---- what there is -------------------------------------------------------------------------------


def gather(collection: Collection) -> tuple[dict[str, Measured], list[tuple]]:
    """Runs by id, and (label, folder, trouble) of every index without a run that fits it."""
    found, without = index.find_all(collection.name), []
    several = {method for method, _ in found if sum(method == other for other, _ in found) > 1}
    measured = {}
    for method, path in found:
        title = methods.METHODS[method].title
        label = f"{title}, {path.name}" if method in several else title
        try:
            run = loaders.run(path, collection)
        except RetrievalError as error:
            without.append((label, path, str(error)))
            continue
        if run is None:
            without.append((label, path, ""))
        else:
            measured[path.name] = Measured(path.name, label, run)
    return measured, without


def evaluate_now(collection: Collection, label: str, path: Path, trouble: str) -> None:
    """An index that was not evaluated: say so, and do it where that is possible."""
    if trouble:
        st.warning(trouble, icon=":material/warning:")
    elif not collection.has_pictures:
        st.info(f"{label} was not evaluated; its queries need pictures, which are not here.")
    else:
        st.info(f"The {label} index was not evaluated yet.")
    if not collection.has_pictures or not st.button("Evaluate now", key=f"run-{path.name}"):
        return
    with loaders.explained():
        bar = st.progress(0.0, f"Putting {len(collection.queries)} queries to {label}")
        loaders.evaluate(path, collection, lambda done, total, name: bar.progress(done / total))
    st.rerun()


# ---- tables and figures --------------------------------------------------------------------------


def percent(value: float) -> float:
    return round(100 * value, 2)


def summary(measured: Iterable[Measured], protocols: Iterable[str]) -> list[dict]:
    """A row for each method and protocol."""
    rows = []
    for one in measured:
        made = one.run.record["provenance"]
        for protocol in protocols:
            scores = one.run.scores[protocol]
            rows.append(
                {
                    "Method": one.label,
                    "Protocol": protocol,
                    "mAP": percent(scores.map),
                    **{f"mP@{k}": percent(value) for k, value in scores.mp.items()},
                    "Queries": int(scores.counted.sum()),
                    "Checkpoint": made["checkpoint"],
                    "Measured": str(one.run.record["made"])[:10],
                }
            )
    return rows


def wide(rows: list[dict], protocol: str) -> list[dict]:
    """The same with a row for each method: mAP of all protocols, precision of one."""
    table = []
    for _, group in groupby(rows, key=lambda row: row["Method"]):
        group = list(group)
        here = next(row for row in group if row["Protocol"] == protocol)
        table.append(
            {"Method": here["Method"]}
            | {f"mAP {row['Protocol'].capitalize()}": row["mAP"] for row in group}
            | {key: here[key] for key in here if key.startswith("mP@")}
            | {key: here[key] for key in ("Queries", "Checkpoint", "Measured")}
        )
    return table


def literature(collection: str, ours: set[str] = frozenset()) -> None:
    """What others state for a collection. ours: checkpoints that were measured here."""
    rows = published.rows(collection)
    kinds = list(dict.fromkeys(kind for row in rows for kind in row.map))
    kinds.sort(key=list(PROTOCOLS).index)
    table = [
        {
            "Stated by": "The report" if row.origin == published.REPORT else "Published",
            "Method": row.method,
            **{f"mAP {kind.capitalize()}": row.map.get(kind) for kind in kinds},
            "Network": row.network,
            **({"Measured above": row.checkpoint in ours} if ours else {}),
            "Source": row.source,
        }
        for row in sorted(rows, key=lambda row: not (row.checkpoint and row.checkpoint in ours))
    ]
    numbers = st.column_config.NumberColumn(format="%.2f")
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        column_config={f"mAP {kind.capitalize()}": numbers for kind in kinds},
        placeholder="–",
        key=f"literature-{collection}",
    )
    downloads(f"{collection}-literature", table)


# ---- query by query ------------------------------------------------------------------------------


def query_rows(
    collection: Collection, scores: Mapping[str, Scores], order: Iterable[int]
) -> list[dict]:
    """Name, landmark and AP of each query, in this order."""
    rows = []
    for number in order:
        asked = collection.queries[number]
        rows.append(
            {"Query": asked.name, "Landmark": asked.landmark}
            | {label: round(float(one.aps[number]), 6) for label, one in scores.items()}
            | {"Right pictures": int(next(iter(scores.values())).positives[number])}
        )
    return rows


def chart(collection: Collection, scores: Mapping[str, Scores], by: str, chosen: int):
    """AP of every query to hover over and to click on: bars, or dots for two methods."""
    order = [int(number) for number in plots.queries_order(scores, by)]
    labels = list(scores)
    data = []
    for place, (number, row) in enumerate(
        zip(order, query_rows(collection, scores, order), strict=True)
    ):
        row = row | {"number": number, "place": place, "top": 1, "chosen": number == chosen}
        row["Query"] = Path(row["Query"]).name
        row["Landmark"] = row["Landmark"].replace("_", " ")
        data.append(row | {f"ap{n}": row[label] for n, label in enumerate(labels)})
    base = altair.Chart().encode(
        x=altair.X(
            "place:O",
            axis=altair.Axis(labels=False, ticks=False),
            title=f"{len(order)} queries, by {SORTED[by]}",
            scale=altair.Scale(paddingInner=0.15),
        )
    )
    axis = altair.Axis(title="Average precision (0 to 1)", tickCount=5)
    scale = altair.Scale(domain=[0, 1])
    layers = []
    if len(labels) == 1:
        if state["eval-colour"] == "Landmark":
            colour = altair.Color(
                "Landmark:N",
                sort=None,
                scale=altair.Scale(scheme="tableau20"),
                legend=altair.Legend(orient="bottom", columns=4, title=None, symbolLimit=0),
            )
        else:
            colour = altair.value(plots.COLOURS[0])
        layers.append(
            base.mark_bar().encode(y=altair.Y("ap0:Q", axis=axis, scale=scale), color=colour)
        )
    else:
        layers.append(
            base.mark_rule(color="#8a949e", strokeWidth=2).encode(
                y=altair.Y("ap0:Q", axis=axis, scale=scale), y2="ap1:Q"
            )
        )
        style = {"domain": labels, "range": list(plots.COLOURS[:2])}
        shapes = {"domain": labels, "range": ["circle", "square"]}
        legend = altair.Legend(orient="top", title=None, symbolSize=140)
        for n, label in enumerate(labels):
            layers.append(
                base.transform_calculate(Method=f"{label!r}")
                .mark_point(filled=True, opacity=1, size=80)
                .encode(
                    y=altair.Y(f"ap{n}:Q", axis=axis, scale=scale),
                    color=altair.Color(
                        "Method:N", scale=altair.Scale(**style), legend=legend, title=None
                    ),
                    shape=altair.Shape(
                        "Method:N", scale=altair.Scale(**shapes), legend=legend, title=None
                    ),
                )
            )
    # The whole column answers to the mouse, however small its mark is.
    tips = [altair.Tooltip(f"{key}:N") for key in ("Query", "Landmark")]
    tips += [
        altair.Tooltip(f"ap{n}:Q", title=f"AP {label}", format=".3f")
        for n, label in enumerate(labels)
    ]
    pick = altair.selection_point("pick", fields=["number"], on="click")
    layers.append(
        base.mark_bar(color="#7a8692", cursor="pointer", width=altair.RelativeBandSize(1.18))
        .encode(
            y=altair.Y("top:Q", axis=axis, scale=scale),
            opacity=altair.condition("datum.chosen", altair.value(0.3), altair.value(0)),
            tooltip=[*tips, altair.Tooltip("Right pictures:Q")],
        )
        .add_params(pick)
    )
    return altair.layer(*layers, data=altair.Data(values=data)).properties(height=320)


def picked() -> None:
    """Callback of the chart: a click on a query opens it, a click beside them changes nothing."""
    points = state["eval-chart"]["selection"]["pick"]
    if points:
        state["eval-query"] = points[0]["number"]


def choose(number: int) -> None:
    """Callback: open a query."""
    state["eval-query"] = number


# ---- one query -----------------------------------------------------------------------------------


def asked_picture(collection: Collection, number: int) -> None:
    """The query picture with its box."""
    asked = collection.queries[number]
    try:
        jpeg, (width, _) = loaders.view(collection.path(asked.name), 800)
    except RetrievalError:
        name = cards.plain(Path(asked.name).name)
        st.info(f"No picture of {name} here.", icon=":material/hide_image:")
        return
    if asked.box:
        picture = Image.open(io.BytesIO(jpeg))
        factor = picture.width / width
        box = [value * factor for value in asked.box]
        ImageDraw.Draw(picture).rectangle(box, outline="#FFFFFF", width=7)
        ImageDraw.Draw(picture).rectangle(box, outline="#0072B2", width=4)
        st.image(picture, width="stretch", alt=f"Query {asked.name} with its box")
    else:
        st.image(jpeg, width="stretch", alt=f"Query {asked.name}")


def ranked_list(
    collection: Collection, one: Measured, number: int, protocol: str, alone: bool
) -> None:
    """The best pictures of a stored ranking, each right, wrong or not counted."""
    ranking = one.run.ranks[:, number]
    kinds = explain(ranking, collection.queries[number].labels, protocol).kinds
    hits = [(n, collection.names[ranking[n]], str(kinds[n])) for n in range(len(kinds))]
    hits = hits[: SHOWN[not alone]]
    if not collection.has_pictures:
        marks = cards.VERDICTS
        st.dataframe(
            [
                {"Rank": n + 1, "": f"{marks[kind].symbol} {marks[kind].label}", "Picture": name}
                for n, name, kind in hits
            ],
            hide_index=True,
            height="content",
            key=f"names-{one.id}",
        )
        return
    with cards.grid(4 if alone else 2, f"hits-{one.id}"):
        for n, name, kind in hits:
            short = cards.plain(Path(name).name)
            label = f"{n + 1}: {short}, {cards.VERDICTS[kind].label.lower()}"
            cards.card(
                collection,
                name,
                f"**{n + 1}** :small[{short}]",
                label,
                f"{one.id}-{n}",
                kind,
                lambda *args: state.update({"eval-enlarged": args}),
                (name, f"Rank **{n + 1}** of {one.label}: {cards.plain(name)}"),
            )


@st.dialog("Query and result", width="large")
def large(collection: Collection, number: int, name: str, caption: str) -> None:
    asked, found = st.columns(2)
    with asked:
        asked_picture(collection, number)
        st.markdown(f"Query: {cards.plain(collection.queries[number].name)}")
    with found:
        cards.picture(collection, name, 1000)
        st.markdown(caption)
        st.page_link(
            "pages/keypoints.py",
            label="Match the two",
            icon=":material/scatter_plot:",
            query_params=view_of(collection, number) | {"view": "pair", "result": name},
        )


# ---- all queries together ------------------------------------------------------------------------


def together(
    collection: Collection, everything: list[Measured], wanted: list[Measured], protocol: str
) -> None:
    what = st.segmented_control(
        "All queries together",
        TOGETHER,
        key="eval-together",
        required=True,
        default=TOGETHER[0],
        label_visibility="collapsed",
    )
    # The chosen ones first: they have the same colours in every figure.
    others = [one for one in everything if one not in wanted]
    shown = [*wanted, *others] if what == TOGETHER[0] else wanted
    scores = {one.label: one.run.scores[protocol] for one in shown}
    note = plots.provenance(collection.title, protocol, [one.run.record for one in shown])
    key = (what, collection.name, protocol, *(one.key for one in shown))
    name = f"{collection.name}-{protocol}-{what.split()[0].lower()}"
    order = plots.queries_order(scores, "AP")
    if what == TOGETHER[0]:
        st.markdown(
            "How many of the first results are right (precision) by the time a share of all right "
            "pictures is found (recall): the mean over the queries. Higher is better."
        )
        levels = [n / 100 for n in range(101)]
        rows = [
            {"Recall": level} | {label: round(one.curve[n], 6) for label, one in scores.items()}
            for n, level in enumerate(levels)
        ]
        figure(name, key, lambda: plots.curves(scores, note), "Precision over recall", rows)
    elif what == TOGETHER[1]:
        st.markdown("A mean hides much: this is how many queries go well and how many badly.")
        rows = query_rows(collection, scores, order)
        figure(name, key, lambda: plots.distribution(scores, note), "Histogram of AP", rows)
    elif what == TOGETHER[2]:
        means = {label: one.by_landmark(collection.queries) for label, one in scores.items()}
        rows = [
            {"Landmark": landmark}
            | {label: round(one[landmark], 6) for label, one in means.items()}
            for landmark in next(iter(means.values()))
        ]
        figure(
            name,
            key,
            lambda: plots.landmarks(scores, collection.queries, note),
            "Mean AP of each landmark",
            rows,
        )
    else:
        rows = query_rows(collection, scores, order)
        for title, numbers in (("Hardest", order[::-1][:EDGE]), ("Easiest", order[:EDGE])):
            st.markdown(f"**{title} for {wanted[0].label}**")
            edge(collection, wanted[0].run.scores[protocol], numbers, title)
        downloads(name, rows)


def edge(collection: Collection, scores: Scores, numbers: Iterable[int], title: str) -> None:
    """Queries as cards that open them, or as names where the pictures are not here."""
    if not collection.has_pictures:
        st.dataframe(
            query_rows(collection, {"AP": scores}, numbers), hide_index=True, key=f"edge-{title}"
        )
        return
    with cards.grid(EDGE, f"edge-{title}"):
        for number in map(int, numbers):
            label = cards.plain(query.label(collection.queries[number]))
            cards.card(
                collection,
                collection.queries[number].name,
                f"**{scores.aps[number]:.3f}** :small[{label}]",
                f"Open {label}",
                f"edge-{title}-{number}",
                None,
                choose,
                (number,),
            )


# ---- an own ranking ------------------------------------------------------------------------------


def uploaded(collection: Collection) -> Measured | str | None:
    """The visitor's ranking, scored; what is wrong with it; or None where there is none."""
    file = state.get("eval-upload")
    if file is None:
        return None
    try:
        run = loaders.submission(file, collection)
    except RetrievalError as error:
        return str(error)
    return Measured(UPLOAD, "Your upload", run)


def bring(collection: Collection, mine: Measured | str | None) -> None:
    with st.expander("Score a ranking of your own", expanded=mine is not None):
        st.markdown(
            f"{submissions.FORM} {collection.title} has {len(collection.names):,} pictures and "
            f"{len(collection.queries)} queries; CSV files say in which order. The file stays in "
            "this session and is not part of the link."
        )
        st.file_uploader(".npz", ["npz"], key="eval-upload", max_upload_size=200)
        if isinstance(mine, str):
            st.error(mine, icon=":material/error:")
        elif mine is not None:
            st.success("Scored: choose “Your upload” as a method above to see it query by query.")
            rows = summary([mine], collection.protocols)
            shown = [
                {key: row[key] for key in row if key not in ("Method", "Checkpoint", "Measured")}
                for row in rows
            ]
            st.dataframe(shown, hide_index=True, key="upload-scores")
            downloads(f"{collection.name}-upload", rows)
        with st.container(horizontal=True):
            download(
                "Pictures in order",
                lambda: as_csv(
                    {"position": n, "name": name} for n, name in enumerate(collection.names)
                ),
                f"{collection.name}-pictures.csv",
                "text/csv",
            )
            download(
                "Queries in order",
                lambda: as_csv(
                    {"column": n, "name": one.name, "box": query.written(one.box)}
                    for n, one in enumerate(collection.queries)
                ),
                f"{collection.name}-queries.csv",
                "text/csv",
            )


# ---- the page ------------------------------------------------------------------------------------

loaders.through_app()
enlarged = state.pop("eval-enlarged", None)
cards.style()
st.title("Evaluation", anchor=False)

shelf = loaders.shelf()
if not shelf:
    st.info("No collection with ground truth is on this machine, so nothing can be measured.")
    with st.expander("How others do on ROxford5k"):
        literature("roxford5k")
    st.stop()
follow_link(shelf)
if state.get("eval-collection") not in shelf:
    searched = state.get("collection")
    state["eval-collection"] = searched if searched in shelf else next(iter(shelf))
place, way = st.columns([1, 2], gap="medium")
place.selectbox(
    "Collection", shelf, format_func=shelf.get, key="eval-collection", persist_state="session"
)
with loaders.explained():
    collection = loaders.collection(state["eval-collection"])
if not collection.protocols:
    st.info(
        f"{collection.title} has no ground truth: nobody has said which pictures are right, so "
        "nothing can be scored."
    )
    st.stop()
if state.get("eval-protocol") not in collection.protocols:
    state["eval-protocol"] = "medium" if "medium" in collection.protocols else "classic"
protocol = way.segmented_control(
    "Protocol",
    collection.protocols,
    format_func=str.capitalize,
    key="eval-protocol",
    required=True,
    persist_state="session",
)
way.caption(RULES[protocol])
if state.get("eval-of") != collection.name:
    state["eval-of"] = collection.name
    state.pop("eval-query", None)
follow_query(collection)
if not collection.has_pictures:
    st.info(f"The pictures of {collection.title} are not on this machine; you see their names.")

measured, without = gather(collection)
mine = uploaded(collection)
if isinstance(mine, Measured):
    measured[UPLOAD] = mine

st.subheader("How good is each method?", anchor=False)
if measured:
    st.markdown(
        "Each query gets an **average precision** (AP): 1 if all its right pictures come first, "
        "near 0 if they come last. **mAP** is the mean over the queries; **mP@10** is the share of "
        "right pictures among the first ten. The table is in per cent."
    )
    rows = summary(measured.values(), collection.protocols)
    numbers = st.column_config.NumberColumn(format="%.2f")
    table = wide(rows, protocol)
    st.dataframe(
        table,
        hide_index=True,
        height="content",
        key="scores",
        column_config={name: numbers for name in table[0] if name.startswith("m")},
    )
    st.caption(
        f"Measured here on {collection.title}, {len(collection.names):,} pictures. mP@k and the "
        f"number of queries are those of {protocol}."
    )
    downloads(f"{collection.name}-scores", rows)
elif not without:
    st.info(
        f"There is no index of {collection.title} on this machine yet: "
        f"`python -m retrieval index {collection.name} --method sir --out "
        f"precomputed/{collection.name}/sir`"
    )
for label, path, trouble in without:
    evaluate_now(collection, label, path, trouble)

ours = {one.run.record["provenance"]["checkpoint"] for one in measured.values()}
if published.rows(collection.name):
    with st.expander(f"Figures of others on {collection.title}: stated, not measured here"):
        literature(collection.name, ours)
else:
    with st.expander("How this compares: figures of others, on other collections"):
        st.markdown(
            f"Nobody else has figures for {collection.title}. These are for 5,000 photographs of "
            "Oxford, so they **do not compare** with the table above; their order does. The report "
            "is the one this project started from."
        )
        for name, title in (("roxford5k", "ROxford5k"), ("oxford5k", "Oxford5k, classic")):
            st.markdown(f"**{title}**")
            literature(name)

if not measured:
    bring(collection, mine)
    st.stop()

st.subheader("Query by query", anchor=False)
if state.get("eval-method") not in measured:
    best = max(measured.values(), key=lambda one: one.run.scores[protocol].map)
    state["eval-method"] = best.id
others = [NOTHING, *(name for name in measured if name != state["eval-method"])]
if state.get("eval-against") not in others:
    # Another method, by its default checkpoint, says more than another checkpoint of the same.
    first: dict[str, str] = {}
    for name, one in measured.items():
        first.setdefault(one.run.record["provenance"].get("method", name), name)
    rivals = [name for name in first.values() if name != state["eval-method"]]
    state["eval-against"] = NOTHING if "eval-against" in state else (rivals or others)[-1]
a, b, c, d = st.columns([3, 3, 3, 2], gap="small")
a.selectbox(
    "Method",
    measured,
    format_func=lambda name: measured[name].label,
    key="eval-method",
    persist_state="session",
)
b.selectbox(
    "Against",
    others,
    format_func=lambda name: "Nothing" if name == NOTHING else measured[name].label,
    key="eval-against",
    persist_state="session",
)
wanted = [
    measured[state[f"eval-{key}"]]
    for key in ("method", "against")
    if state[f"eval-{key}"] != NOTHING
]
orders = [name for name in ORDERS if name != "difference" or len(wanted) > 1]
if state.get("eval-order") not in orders:
    state["eval-order"] = "AP"
order = c.segmented_control(
    "Order by", orders, format_func=ORDERS.get, key="eval-order", required=True
)
state.setdefault("eval-colour", "Method")
if len(wanted) == 1:
    d.segmented_control("Colour", ("Method", "Landmark"), key="eval-colour", required=True)

scores = {one.label: one.run.scores[protocol] for one in wanted}
counted = [int(n) for n in plots.queries_order(scores, "collection")]
if state.get("eval-query") not in counted:
    if "eval-query" in state:
        st.caption(f"That query has no right picture under {protocol} and counts in no mean.")
    state["eval-query"] = int(plots.queries_order(scores, "AP")[len(counted) // 2])
number = state["eval-query"]
st.altair_chart(
    chart(collection, scores, order, number),
    key="eval-chart",
    on_select=picked,
    selection_mode="pick",
    alt="Average precision of every query; the list below the chart chooses one as well.",
)
note = plots.provenance(collection.title, protocol, [one.run.record for one in wanted])
st.caption(f"{note}. Click on a query to open it.")
key = ("queries", collection.name, protocol, order, *(one.key for one in wanted))
downloads(
    f"{collection.name}-{protocol}-queries",
    query_rows(collection, scores, plots.queries_order(scores, order)),
    lambda kind: loaders.drawing(
        kind, key, lambda: plots.per_query(scores, collection.queries, note, order)
    ),
)

st.subheader("One query", anchor=False)
asking, answers = st.columns([1, 2], gap="medium")
with asking:
    st.selectbox(
        "Query",
        counted,
        format_func=lambda n: query.label(collection.queries[n]),
        key="eval-query",
        persist_state="session",
    )
    asked_picture(collection, number)
    view = view_of(collection, number)
    first = next(iter(wanted)).run.record["provenance"]["method"]
    st.page_link(
        "pages/search.py",
        label="Open in search",
        icon=":material/image_search:",
        query_params=view
        | {"judge": protocol}
        | ({"method": first} if first in methods.METHODS else {}),
    )
write_link(view)
with answers:
    right = int(next(iter(scores.values())).positives[number])
    cards.legend(f"Judged as {protocol}: {right} right")
    for column, one in zip(st.columns(len(wanted)), wanted, strict=True):
        with column:
            st.markdown(f"**{one.label}** · AP {one.run.scores[protocol].aps[number]:.3f}")
            ranked_list(collection, one, number, protocol, len(wanted) == 1)

st.subheader("Explain this AP", anchor=False)
shown = wanted[0]
if len(wanted) > 1:
    if state.get("eval-explain") not in [one.id for one in wanted]:
        state["eval-explain"] = wanted[0].id
    st.segmented_control(
        "Of which method",
        [one.id for one in wanted],
        format_func=lambda name: measured[name].label,
        key="eval-explain",
        required=True,
        label_visibility="collapsed",
    )
    shown = measured[state["eval-explain"]]
average_precision.section(collection, number, protocol, shown.label, shown.run)

st.subheader("All queries together", anchor=False)
together(collection, list(measured.values()), wanted, protocol)

bring(collection, mine)

if enlarged:
    large(collection, number, *enlarged)
