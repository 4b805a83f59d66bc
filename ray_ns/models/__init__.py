"""Networks: timm models, built, saved and loaded; their losses, weight averages and predictions."""
