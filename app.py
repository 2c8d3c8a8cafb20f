"""Set the page up and list the pages; run with ``streamlit run app.py``.

They are in ``ui/``: a folder called ``pages`` would be Streamlit's own older kind of multi-page
app until the first visit to this file, so that a link to a page would open without it.
"""

import streamlit as st

st.set_page_config("Image retrieval", "🔎", layout="wide")
st.navigation(
    [
        st.Page("ui/search.py", title="Search", icon=":material/image_search:", default=True),
        st.Page("ui/about.py", title="How it works", icon=":material/school:"),
    ],
    position="top",
).run()
