"""Labels: their table, and the selection from them. Pure: values in, values out."""
