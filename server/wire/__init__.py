"""The wire: messages, pictures both ways, the send queue and the origin check. May import only `errors`."""
