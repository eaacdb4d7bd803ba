"""What does authorization cost at a given rate? Open-loop load on an ext_authz server or on a URL behind a mesh.

Calls are sent at times fixed beforehand and never wait for answers to earlier ones; a latency counts from the time at
which its call was due. Nothing here decides requests.
"""
