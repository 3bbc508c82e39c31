"""Every term once, as a config would name it: on the layers of `CifarResNet`s, or of encoders for
attention scores."""

VECTORS = dict(student="pooled", teacher="pooled", mapping="linear")
MAPS = dict(student=("block_0", "block_2"), teacher=("block_0", "block_2"))
BEFORE = dict(
    student=("block_1_preact", "block_2_preact"), teacher=("block_1_preact", "block_2_preact")
)
STAGES = dict(student=("block_0", "block_1", "block_2"), teacher=("block_0", "block_1", "block_2"))

ON_IMAGES = {
    "activation_boundary": BEFORE | dict(mapping="connector"),
    "attention_transfer": MAPS,
    "attribution_matching": dict(
        players=(2, 2), value="shapley", draws=4, examples=None, baseline=0.5
    ),
    "batch_correlation": {},
    "class_correlation": {},
    "contrastive_representation": dict(width=4, negatives=16),
    "correlation_congruence_adjacent": dict(mapping="linear"),
    "correlation_congruence_rbf": {},
    "cosine_distance": VECTORS,
    "cross_entropy": {},
    "decoupled_kd": {},
    "deit_hard": {},
    "dist": {},
    "factor_transfer": dict(student="block_2", teacher="block_2"),
    "flow_of_solution": dict(student=("block_0", "block_1"), teacher=("block_0", "block_1")),
    "hidden_mse": dict(student="block_1", teacher="block_1", mapping="convolution"),
    "hierarchical_context": MAPS | dict(mapping="mlp"),
    "info_nce": dict(mapping="linear"),
    "jensen_shannon": {},
    "logit_mse": {},
    "neuron_selectivity": MAPS,
    "normalized_mse": VECTORS,
    "overhaul": BEFORE,
    "probabilistic_transfer": {},
    "reverse_kl": {},
    "review": STAGES | dict(middle=4),
    "rkd_angle": {},
    "rkd_distance": {},
    "similarity_preserving": dict(student="block_1", teacher="block_1"),
    "skew_kl": {},
    "skew_reverse_kl": {},
    "soft_target_kl": {},
    "standardized_kl": {},
    "topk_kl": dict(k=2),
    "total_variation": {},
    "universal_logit_distance": {},
    "variational": MAPS,
}
SCORES = dict(student=("attention_0", "attention_1"), teacher=("attention_0", "attention_1"))
TOKENS = dict(student="block_0", teacher="block_0")
ON_TEXTS = {
    "attention_scores_mse": SCORES,
    "attention_transfer": TOKENS,
    "attribution_matching": dict(
        players="tokens", value="banzhaf", draws=2, examples=4, baseline=None
    ),
    "contrastive_representation": dict(width=4, negatives=16),
    "cosine_distance": TOKENS | dict(mapping="linear"),
    "hidden_mse": TOKENS | dict(mapping="mlp"),
    "hierarchical_context": TOKENS | dict(mapping="linear"),
    "neuron_selectivity": TOKENS,
    "relation_kl": SCORES,
    "rkd_distance": {},
    "soft_target_kl": dict(temperature={"name": "linear", "start": 4.0, "stop": 1.0, "steps": 2}),
}
ON_SETS = {
    "binary_cross_entropy": dict(positive_weights=(1.0, 2.0, 0.5)),
    "binary_soft_target_kl": dict(temperature=2.0),
}
ON_NUMBERS = {
    "bounded_regression": dict(margin=0.5),
    "huber": dict(delta={"name": "linear", "start": 2.0, "stop": 0.5, "steps": 2}),
    "squared_error": {},
}


def objective(specs, weight=1.0):
    """All terms of `specs` in one objective, each by its own name."""
    return {name: dict(term=name, weight=weight) | options for name, options in specs.items()}


def mean_of(term, params, state, context):
    """A bound term on one microbatch, as an objective counts it, and its new state."""
    values, new = term.compute(params, state, context)
    return term.mean(values, context.batch), new
