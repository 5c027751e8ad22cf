"""Text to training data: read, clean, drop duplicates, split, train a tokenizer, write token shards and a manifest."""
