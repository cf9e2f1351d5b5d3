"""The executor's threads (`runtime_sim.threads`)."""

from ..threads import each, gather, one_thread_products, slices

__all__ = ["each", "gather", "one_thread_products", "slices"]
