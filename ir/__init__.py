"""The dataflow IR: types, accesses, expressions, graph, verifier, text form and reference interpreter."""
