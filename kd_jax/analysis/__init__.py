"""What a network and its parts are worth: Shapley values, attributions of predictions, quantified knowledge."""
