"""The entry that all scenarios use: an order of five fields, some 100 bytes as JSON."""

from __future__ import annotations

from typing import Any


def order(number: int) -> dict[str, Any]:
    """The order of that number; each is a little different, so that nothing can be remembered."""
    return {
        "order_id": 1_000_000 + number,
        "customer": f"cus_{number * 2654435761 % 2**48:012x}",
        "sku": f"SKU-{number % 99991:05}-XL",
        "quantity": 1 + number % 7,
        "price": 129.9,
    }
