"""The gold reward model that plays the human: it knows texts and scores, never policies."""
