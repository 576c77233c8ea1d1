"""Draft rounds: all drafts of a step in one launch, over state that lives on the device."""
