"""Transfer sets: new inputs that a trained teacher labels, for students to learn from beside the training data."""
