"""Policies: loading, tokens, sampling, log-probs and KL; the only room that sees a model."""
