"""The table that the clients follow."""

from __future__ import annotations

ORDERS = """
    CREATE TABLE public.orders (id int PRIMARY KEY, status text);
    SELECT brain.watch('orders', 'orders', '{id,status}');
    INSERT INTO public.orders VALUES (1, 'open'), (2, 'paid');
"""
