"""Names of the parts of a data set (train, val, test and other spellings), which are not classes."""

import re

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "holdout"),
}
_WORDS = "|".join(word for words in SPLITS.values() for word in words)
# imagenet_train, val2017, test-00000-of-00002
_SPLIT = re.compile(
    rf"(?:.*[-_. ])?({_WORDS})(?:[-_. ]?(?:\d+|set|split|images))*(?:[-_. ]of[-_. ]\d+)?", re.IGNORECASE
)


def split_of(name: str) -> str | None:
    """``train``, ``validation`` or ``test`` if the name of a folder or shard, without its suffix, says so."""
    word = _SPLIT.fullmatch(name)
    return next((split for split, words in SPLITS.items() if word and word[1].lower() in words), None)
