"""
Describes the addresses of Brain, as OpenAPI and AsyncAPI documents.

In: routes that describe themselves, and the models of their messages. Out: documents, as objects
for JSON. Nothing here serves or sends.
"""
