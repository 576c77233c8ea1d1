"""Planning: measure a pair of models once, then know what speculation does to any traffic."""
