"""The right answers to the query on show, and the origin of these labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pages.parts import own_pictures, query
from pages.parts.plain import plain
from retrieval.collections import Collection, judgements
from retrieval.collections.ground_truth import same_landmark
from retrieval.evaluation import PROTOCOLS, explain
from retrieval.images import Box
from retrieval.ranking.ranking import Ranking


@dataclass(frozen=True)
class Judged:
    """The right answers to one query, as far as they are known.

    labels: kind ('easy', 'ok', 'junk' …) → positions in the collection, as in its ground truth.
    protocol: turns labels into verdicts.
    truth: name of a picture → its verdict, 'positive', 'ignored' or 'wrong'.
    others: verdict on all pictures that ``truth`` lacks; None where those were not judged.
    sentence: how many pictures are right, and who says so.
    """

    collection: Collection
    labels: Mapping[str, np.ndarray]
    protocol: str
    truth: Mapping[str, str]
    sentence: str
    others: str | None = judgements.WRONG

    def verdict(self, name: str) -> str | None:
        """'positive', 'ignored' or 'wrong'; None for a picture that was not judged."""
        return self.truth.get(name, self.others)

    def average_precision(self, ranking: Ranking) -> float:
        """AP of a ranking, whose index may lack pictures of the collection.

        Of a stranger's index it may hold others, which are wrong.
        """
        positions = self.collection.positions
        ranks = np.array([positions.get(name, len(positions)) for name in ranking.names], np.int64)
        return explain(ranks, self.labels, self.protocol).average_precision


def judge(
    collection: Collection, query_picture: query.QueryPicture, box: Box | None, protocol: str
) -> Judged | str:
    """The right answers to a query, or a sentence that says why they are not known."""
    if collection.name == own_pictures.NAME:
        return _judged_by_visitor(collection, query_picture, box, protocol)
    if not collection.protocols:
        return ""
    if query_picture.labels:
        labels, who = (
            query_picture.labels,
            f"by the labels of this query (protocol {protocol.capitalize()})",
        )
        labels, without = _without_itself(collection, query_picture.name, labels, protocol)
        who += without
    elif isinstance(query_picture.source, Path) and query_picture.name in collection.names:
        known = same_landmark(collection.queries, collection.names.index(query_picture.name))
        if known is None:
            return "Which pictures show the same place as this one is not known."
        landmark, right, junk = known
        # "Easy" and "hard" hold for one query only: here all pictures of the landmark are right.
        kind, protocol = ("ok", "classic") if protocol == "classic" else ("easy", "medium")
        labels = {kind: right, "junk": junk}
        name = plain(landmark.replace("_", " ")) or "the same place"
        who = f"by landmark: every picture that the prepared queries of {name} count as right"
    else:
        return "For a picture of your own the right results are not known."
    truth = _truth(collection, labels, protocol)
    return Judged(collection, labels, protocol, truth, f"{_right(truth)}, {who}")


def _judged_by_visitor(
    collection: Collection, query_picture: query.QueryPicture, box: Box | None, protocol: str
) -> Judged | str:
    if query_picture.own_name is None:  # only its name may be that of a picture here
        return ""
    box = query.labelled_box(query_picture, box)
    judgement = judgements.find(collection, query_picture.name, box)
    marks = judgements.verdicts(collection, judgement)
    if judgement is None or not marks:
        return ""
    if protocol not in collection.protocols:  # nothing is right yet
        protocol = "classic"
    labels, without = _without_itself(collection, query_picture.name, judgement.labels, protocol)
    refused = {name: verdict for name, verdict in marks.items() if verdict == judgements.WRONG}
    truth = refused | _truth(collection, labels, protocol)
    sentence = (
        f"{_right(truth)}, judged by you{without}. In the AP, pictures without a mark count as "
        "wrong."
    )
    return Judged(collection, labels, protocol, truth, sentence, others=None)


def _truth(
    collection: Collection, labels: Mapping[str, np.ndarray], protocol: str
) -> dict[str, str]:
    """Picture → its verdict under a protocol, for those in the labels that it looks at."""
    rule = PROTOCOLS[protocol]
    return {
        collection.names[position]: verdict
        for verdict, kinds in (("ignored", rule.ignored), ("positive", rule.positives))
        for kind in kinds
        for position in labels.get(kind, ())
    }


def _without_itself(
    collection: Collection, name: str, labels: Mapping[str, np.ndarray], protocol: str
) -> tuple[Mapping[str, np.ndarray], str]:
    """Labels without the query's own picture, and words on what it does in the evaluation.

    It is not in the ranking, where it would count as not found. name: of the query. The words are
    '' where it makes no difference: the labels leave it out of the score, or nothing is right.
    """
    own, rule = collection.positions.get(name), PROTOCOLS[protocol]
    if own is None or not any(len(labels.get(kind, ())) for kind in rule.positives):
        return labels, ""
    if any(own in labels.get(kind, ()) for kind in rule.positives):
        others = {kind: right[right != own] for kind, right in labels.items()}
        return others, " and without its own picture, which the evaluation counts too"
    if any(own in labels.get(kind, ()) for kind in rule.ignored):
        return labels, ""
    return labels, " and without its own picture, which the evaluation counts as wrong"


def _right(truth: Mapping[str, str]) -> str:
    count = sum(verdict == "positive" for verdict in truth.values())
    return "1 picture is right" if count == 1 else f"{count} pictures are right"
