"""The HTTP edge: the OpenAI chat API over a router, and what its operators look at.

`app` puts it together; `chat` is the hot route; `read` turns a request into a `Query`; `refusal` turns a failure into a status.
"""
