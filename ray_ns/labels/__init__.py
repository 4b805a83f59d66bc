"""Labels: images to probabilities, probabilities to a table, a table to a selection. Pure: values in, values out."""
