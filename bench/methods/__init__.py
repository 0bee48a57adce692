"""Methods: how a policy is trained."""
