"""The process and its sockets, on uvicorn."""
