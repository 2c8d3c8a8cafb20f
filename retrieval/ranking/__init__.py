"""From features to a ranking: the search, and the geometry that checks it."""
