"""Our losses in the trainers of others; each needs the library it is named after."""
