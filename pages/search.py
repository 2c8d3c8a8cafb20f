"""Search by example: pick a collection and a picture, draw a box, see what each method finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from pages.parts import cards, loaders, own_pictures, query
from retrieval import index, methods
from retrieval.collections import Collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import protocols as evaluation
from retrieval.images import Box
from retrieval.ranking.search import Ranking

ALL = "all"
FEWEST, MOST, PER_PAGE = 3, 60, 24
state = st.session_state


# ---- the view is in the address ------------------------------------------------------------------


def follow_link(shelf: Mapping[str, str]) -> None:
    """Put what the address asks for into the session, before any widget is drawn."""
    asked = query.newly_asked(shelf, "link", "collection")
    if not asked:
        return
    if asked.get("method") in (*methods.METHODS, ALL):
        state.method = asked["method"]
    if asked.get("judge") in evaluation.PROTOCOLS:
        state.judge = asked["judge"]
    if asked.get("count", "").isdecimal():
        state.count = min(max(int(asked["count"][:4]), FEWEST), MOST)
    try:
        state.least = float(asked["least"])
    except (KeyError, ValueError):
        state.least = None
    state.asked = (asked["query"], asked.get("box", "")) if "query" in asked else None


def follow_query(collection: Collection) -> None:
    """The rest of a link, which needs the collection: query and box."""
    if asked := state.pop("asked", None):
        query.follow(collection, *asked)


def write_link(collection: Collection, question: query.Question | None) -> None:
    """Mirror the view in the address. A visitor's own pictures cannot be part of it."""
    link = {"method": state.method, "count": str(state.count)}
    if state.get("least") is not None:
        link["least"] = f"{state.least:g}"
    if collection.protocols:
        link["judge"] = state.judge
    if collection.name != own_pictures.NAME:
        link["collection"] = collection.name
        if state.get("searched") and question and isinstance(question.source, Path):
            link["query"] = question.name
            if state.box:
                link["box"] = state.box
    state.link = link
    if link != st.query_params.to_dict():
        st.query_params.from_dict(link)


# ---- answers -------------------------------------------------------------------------------------


def indexes(collection: Collection) -> dict[str, Path]:
    return (
        own_pictures.current().indexes
        if collection.name == own_pictures.NAME
        else index.find(collection.name)
    )


def judge(collection: Collection, question: query.Question) -> cards.Truth:
    if not question.labels or not collection.protocols:
        return None
    return cards.verdicts(collection, question.labels, evaluation.PROTOCOLS[state.judge])


def answer(
    name: str,
    collection: Collection,
    question: query.Question,
    box: Box | None,
    truth: cards.Truth,
) -> None:
    """One method's answer: its pictures, best first, and what they cost."""
    st.subheader(methods.METHODS[name].title, anchor=False)
    path = indexes(collection).get(name)
    if path is None:
        offer_index(name, collection)
        return
    try:
        ranking = loaders.search(path, name, collection, question.source, question.key, box)
    except RetrievalError as error:
        st.error(str(error), icon=":material/error:")
        return
    show(name, collection, ranking, truth)
    cost(ranking)
    st.download_button(
        "Ranking as CSV",
        lambda: cards.as_csv(ranking, truth),
        f"{collection.name}-{name}-{Path(question.name).stem}.csv",
        "text/csv",
        key=f"csv-{name}",
        on_click="ignore",
        icon=":material/download:",
    )


def show(name: str, collection: Collection, ranking: Ranking, truth: cards.Truth) -> None:
    """The best pictures as a grid of cards."""
    hits = range(min(state.count, len(ranking.names)))
    if state.method != ALL and state.get("least") is not None:
        hits = [n for n in hits if ranking.scores[n] >= state.least]
    if not hits:
        st.info("No picture scores that much; lower the least score in the options.")
        return
    with cards.grid(2 if state.method == ALL else 3, name):
        for n in hits:
            hit = ranking.names[n]
            short = cards.plain(Path(hit).name)
            caption = f"**{n + 1}** · {score(ranking, n)}  \n:small[{short}]"
            verdict = truth.get(hit, "wrong") if truth is not None else None
            label = f"{n + 1}: {short}"
            if verdict:
                label += f", {cards.VERDICTS[verdict].label.lower()}"
            said = (hit, f"**{n + 1}** · {score(ranking, n)} · {cards.plain(hit)}")
            cards.card(collection, hit, caption, label, f"{name}-{n}", verdict, enlarge, said)


def score(ranking: Ranking, n: int) -> str:
    if ranking.inliers is not None:
        return f"{ranking.inliers[n]} matches" if ranking.inliers[n] else "no match"
    return f"{ranking.scores[n]:.3f}"


def cost(ranking: Ranking) -> None:
    """Which network answered, on how many pictures, and how long each stage took."""
    made = ranking.provenance
    times = " · ".join(f"{stage} {duration(t)}" for stage, t in ranking.timings.items())
    stands_in = f", standing in for {made['stands_in_for']}" if made["stands_in_for"] else ""
    st.markdown(
        f":small[{times} · {made['pictures']:,} pictures]  \n"
        f":small[Checkpoint **{made['checkpoint']}**{stands_in}]"
    )


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def offer_index(name: str, collection: Collection) -> None:
    """There is no index: make one of a visitor's own pictures, else say how."""
    title = methods.METHODS[name].title
    if collection.name != own_pictures.NAME:
        st.info(f"There is no {title} index of {collection.title} on this machine yet.")
        return
    if st.button(f"Index my pictures with {title}", key=f"build-{name}"):
        with loaders.explained():
            own_pictures.build(name)
        st.rerun()


def enlarge(name: str, caption: str) -> None:
    """Callback of a card: show it large once the page is drawn."""
    state.enlarged = name, caption


@st.dialog("Query and result", width="large")
def large(
    collection: Collection, question: query.Question, box: Box | None, name: str, caption: str
) -> None:
    asked, found = st.columns(2)
    with asked:
        jpeg, size = loaders.view(question.source, 1000, question.name)
        st.image(cards.boxed(jpeg, size, box), width="stretch", alt="Query")
        st.markdown(f"Query · {cards.plain(question.name)}")
    with found:
        cards.picture(collection, name, 1000)
        st.markdown(caption)
        if (
            "delf" in wanted
            and collection.name != own_pictures.NAME
            and isinstance(question.source, Path)
        ):
            view = {"view": "pair", "collection": collection.name, "query": question.name}
            view |= {"result": name} | ({"box": state.box} if state.box else {})
            st.page_link(
                "pages/keypoints.py",
                label="See the matches",
                icon=":material/scatter_plot:",
                query_params=view,
            )
        if st.button(
            "Make it the next query",
            key="next",
            type="primary",
            width="stretch",
            on_click=query.ask_database,
            args=(name,),
        ):
            st.rerun()


def browse(collection: Collection) -> None:
    """Before a search: the pictures to start from."""
    st.subheader("Click a picture to search with it", anchor=False)
    prepared = state.source == query.PREPARED
    choices = range(len(collection.queries)) if prepared else collection.names
    pages = -(-len(choices) // PER_PAGE)
    page = state.get("page", 1)
    if page > pages:
        page = state.page = 1
    with cards.grid(3, "browse"):
        for n, choice in enumerate(choices[(page - 1) * PER_PAGE : page * PER_PAGE]):
            one = collection.queries[choice] if prepared else None
            label = cards.plain(query.label(one) if one else Path(choice).name)
            cards.card(
                collection,
                one.name if one else choice,
                f":small[{label}]",
                f"Search with {label}",
                f"browse-{n}",
                None,
                query.ask_prepared if one else query.ask_database,
                (choice,),
            )
    if pages > 1:
        st.pagination(pages, key="page")


# ---- the page ------------------------------------------------------------------------------------

enlarged = state.pop("enlarged", None)
loaders.through_app()
cards.style()
head = st.container(
    horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", wrap=False
)
head.title("Search by example", anchor=False, width="content")

shelf = loaders.shelf() | {own_pictures.NAME: own_pictures.TITLE}
follow_link(shelf)
state.setdefault("method", "cnn-irwnha")
state.setdefault("count", 12)
if state.get("collection") not in shelf:
    state.collection = next(iter(shelf))

place, way = st.columns([1, 2], gap="medium")
place.selectbox(
    "Collection", shelf, format_func=shelf.get, key="collection", persist_state="session"
)
way.segmented_control(
    "Method",
    [*methods.METHODS, ALL],
    format_func=lambda name: "Compare all" if name == ALL else methods.METHODS[name].title,
    key="method",
    required=True,
    persist_state="session",
)
wanted = list(methods.METHODS) if state.method == ALL else [state.method]

if state.collection == own_pictures.NAME:
    if len(shelf) == 1 and own_pictures.current() is None:
        st.info("No collection is installed here yet. Bring pictures of your own to search in.")
    with st.expander("Bring pictures", expanded=own_pictures.current() is None):
        own_pictures.form(wanted)
    if own_pictures.current() is None:
        st.stop()
    own_pictures.left_out()
with loaders.explained():
    collection = (
        own_pictures.current().collection
        if state.collection == own_pictures.NAME
        else loaders.collection(state.collection)
    )
follow_query(collection)
if not collection.has_pictures:
    st.info(f"The pictures of {collection.title} are not on this machine; you see their names.")

with head.popover("Options", icon=":material/tune:"):
    st.slider("Pictures to show", FEWEST, MOST, step=3, key="count", persist_state="session")
    st.number_input(
        "Least score",
        value=None,
        key="least",
        disabled=state.method == ALL,
        help="Leave out results below it. Scores of different methods do not compare.",
        persist_state="session",
    )
    if collection.protocols:
        if state.get("judge") not in collection.protocols:
            state.judge = "medium" if "medium" in collection.protocols else collection.protocols[0]
        st.segmented_control(
            "Judge results as",
            collection.protocols,
            format_func=str.capitalize,
            key="judge",
            required=True,
            persist_state="session",
        )

asking, answers = st.columns([1, 2], gap="medium")
with answers, loaders.explained(), asking.container(key="asking"):  # what is wrong, at the top
    question = query.pick(collection)
    box = query.frame(collection, question) if question else None
    if question and st.button("Search", type="primary", width="stretch", key="go"):
        state.searched = True
    if question and isinstance(question.source, bytes):
        st.caption("Your picture stays in this session and is not part of the link.")

write_link(collection, question)
with answers:
    if question is None:
        st.info("Choose a picture on the left to search with.")
    elif not state.get("searched") and isinstance(question.source, bytes):
        st.info("Draw a box around what you mean, or leave it, and press Search.")
    elif not state.get("searched"):
        browse(collection)
    else:
        with st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
        ):
            truth = judge(collection, question)
            if truth is not None:
                right = sum(verdict == "positive" for verdict in truth.values())
                cards.legend(f"Judged as {state.judge}: {right} right")
            elif collection.protocols:
                st.caption("Right and wrong are known for prepared queries only: no frames here.")
            st.button(
                "Other pictures",
                key="back",
                type="tertiary",
                icon=":material/apps:",
                on_click=lambda: state.update(searched=False),
            )
        for column, name in zip(st.columns(len(wanted)), wanted, strict=True):
            with column:
                answer(name, collection, question, box, truth)

if enlarged and question:
    large(collection, question, box, *enlarged)
