"""What the Locust user measures, keeps per step of the load, and writes and compares."""
