"""How good a network is: figures from its labels and the truth."""
