"""Datasets and files of other machines, by fsspec; imported when a URL is given.

Credentials, endpoints and all that a store needs to know come from where its library finds them:
the environment, the configuration of fsspec and of the store's own tools.
"""
