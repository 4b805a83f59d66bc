"""Threshold and balance: which labels train the student, and how many copies of each image.

Rule ``paper`` (Noisy Student, section 3): drop labels below the threshold; keep the K most confident of each class,
ties by image id; duplicate the images of a scarce class until it has exactly K. Five rows with threshold 0.5 and
K ``auto``: four labels reach the threshold and there are two classes, so K = 4 / 2 = 2.

    id  class  confidence  copies  why
    1   cat    0.60        1       the second of K: ties with 3, and 1 is the smaller id
    2   cat    0.90        1       the most confident cat
    3   cat    0.60        0       K cats are kept already
    4   cat    0.40        0       below the threshold
    5   dog    0.70        2       the only dog, so it is duplicated to K

Three images are kept, with four copies. One module for each step:

- ``terms``: the settings, by class: threshold and K.
- ``bins``: the confidence bins of the histograms.
- ``rules``: what each class gives (its quota), from the histograms. Rule ``official`` is here too.
- ``passes``: count the shards, split each of them by the quotas, settle what one shard cannot decide alone.
- ``ties``: one pass more, where too many labels have the very same confidence.
- ``carry``: what stays of an earlier round: its selection, or how labels changed since.

Nothing is shuffled or sorted as a whole. All steps take shards in any order and of any size. The memory they need
grows with the number of classes, not of labels.
"""
