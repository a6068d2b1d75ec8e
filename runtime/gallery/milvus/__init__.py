"""Galleries kept in a Milvus collection."""
