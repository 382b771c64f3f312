"""What families of algorithms share: inner loops, heads on embeddings, closed forms."""
