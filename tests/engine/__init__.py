"""Real engines with drafts; a package, so that what it starts ends with it."""
