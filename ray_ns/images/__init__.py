"""What an image is: where it lies, how its bytes become pixels, how its pixels are noised."""
