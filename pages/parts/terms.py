"""Terms of the field, each explained in a tooltip at its first place on a page."""

from __future__ import annotations

TERMS = {
    "query": "The picture that one searches with. Prepared queries have a box around the landmark, "
    "and their right answers are known.",
    "collection": "The pictures that are searched.",
    "descriptor": "The list of numbers by which a network describes a picture, or a part of it.",
    "cosine": "How alike two descriptors are: 1 if they point the same way, 0 if they have nothing "
    "in common.",
    "keypoint": "A small place in a picture that can be found again in other pictures.",
    "match": "Two keypoints, one in each picture, whose descriptors are alike.",
    "transformation": "A shift, turn and stretch that carries one picture over to the other.",
    "inliers": "Matches that fit one transformation. The others are outliers. With many of them "
    "both pictures very likely show the same thing.",
    "AP": "Average precision: 1 if all right pictures come first, near 0 if they come last.",
    "mAP": "The mean of the average precision over all queries.",
    "mP@k": "The share of right pictures among the first k, as a mean over the queries. If the "
    "last right picture comes before place k, only the places up to it count.",
    "precision": "The share of the results down to a rank that is right.",
    "recall": "The share of all right pictures that was found down to a rank.",
    "protocol": "The rule that says which pictures count as right, and which are left out. "
    "Easy: clear views are right. Hard: difficult views. Medium: both.",
    "ground truth": "Which pictures show the same place as a query, known beforehand.",
    "left out of the score": "Pictures that show the landmark too badly, or too well for this "
    "protocol. They count neither as right nor as wrong.",
    "checkpoint": "One set of weights of a network. Its name has the method and the network: "
    "gem-lite0 is CNN-IRwNHA, which uses GeM pooling, with EfficientNet-Lite0.",
    "index": "The descriptors of a whole collection, made once and kept.",
    "attention": "A number that DELF gives each place of a picture. The places with the highest "
    "become keypoints.",
    "receptive field": "The part of the picture that the descriptor of a keypoint depends on.",
    "pyramid level": "DELF looks at the picture in several sizes. ×1 is the one that every picture "
    "is brought to first; small details are found at ×2, which is twice as wide.",
    "visual word": "A group of descriptors that are alike. Pictures with the same words as the "
    "query get votes, which is fast; only the best are compared keypoint by keypoint.",
    "re-ranker": "Looks at the first results again and puts them into a better order.",
}


def explained(*names: str) -> str:
    """Markdown for a tooltip: a line for each term."""
    return "  \n".join(f"**{name[0].upper()}{name[1:]}**: {TERMS[name]}" for name in names)
