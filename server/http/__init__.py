"""The FastAPI application: routes, connections and their limits, and the server process. May import all but `cli`."""
