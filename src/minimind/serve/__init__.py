"""A server for many users on one small machine, that any OpenAI client can talk to.

request.py     what is asked, and what comes back
slots.py       where keys and values of all requests lie, and what of them the next request can use again
precision.py   weights in float32, bfloat16 or int8
forward.py     one pass of the model over the new tokens of all requests
choice.py      the next id of each request
engine.py      the loop of these: admit, compute, choose, tell           <- read first
runner.py      the thread that runs engines, and its side of asyncio
answer.py      ids as they come -> reasoning, content, tool calls
schema.py      what a client may send
replies.py     what it is sent back
api.py         the routes
guard.py       who may come in, and how much they may bring
connection.py  who may stay, and for how long
metrics.py     figures for Prometheus
app.py         all of it as one application and one process
"""
