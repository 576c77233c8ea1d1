"""Audits: is the answer the same, is the machine right; what to know before deploying."""
