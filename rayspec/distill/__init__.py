"""Distillation: trains a draft for a target on what the target says, and checks such a pair."""
