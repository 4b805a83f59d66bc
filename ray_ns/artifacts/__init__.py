"""What a commit is: a network, labels, a selection, scores. The one place that knows the files of each."""
