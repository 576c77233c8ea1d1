"""The target deployments: a vLLM engine with its own OpenAI application, in each of the lanes."""
