"""The wire: messages, pictures, the send queue and the origin check. May import only `errors`."""
