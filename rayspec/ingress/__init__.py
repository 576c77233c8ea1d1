"""The ingress: reads OpenAI requests, decides where they go, and relays the answers."""
