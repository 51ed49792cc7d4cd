"""Contracts of Stampede: messages, enums and gRPC stubs, generated from its proto files."""
