"""An image: its bytes become pixels, safely, and its pixels are noised."""
