"""Set the page up and list the pages; run with ``streamlit run app.py``."""

import streamlit as st

from pages.parts import entrance, limits, notices, start

limits.set_once()
if __name__ == "app":
    # Streamlit imports this file before its server answers, so that the limits hold from the start.
    app = st.App(__file__, lifespan=start.until_the_end)
else:
    # And it runs the file whenever a page is shown.
    st.set_page_config("Image retrieval", "🔎", layout="wide")
    page = st.navigation(
        [
            st.Page(
                "pages/search.py", title="Search", icon=":material/image_search:", default=True
            ),
            st.Page("pages/about.py", title="How it works", icon=":material/school:"),
            st.Page(
                "pages/keypoints.py", title="Keypoints and matches", icon=":material/scatter_plot:"
            ),
            st.Page("pages/evaluation.py", title="Evaluation", icon=":material/query_stats:"),
            st.Page("pages/groups.py", title="Groups", icon=":material/stacks:"),
            st.Page("pages/collections.py", title="Collections", icon=":material/photo_library:"),
            st.Page(
                "pages/networks.py", title="Networks and indexes", icon=":material/deployed_code:"
            ),
        ],
        # Without one of its own a page gets a menu of the names of files.
        position="top" if entrance.passed() else "hidden",
    )
    entrance.ask()
    st.session_state.through_app = True  # see entrance.run_app_first
    notices.stores_away()
    page.run()
