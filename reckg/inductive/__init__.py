"""Items and users that the model has never seen: their vectors, and recommendations from them, without training."""
