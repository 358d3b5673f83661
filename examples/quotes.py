"""A price is asked for, and the answer waited for: what the handler returns comes back with the acknowledgement.

Run `streamworker run quotes.py` in one terminal, and `python quotes.py tea` in another.
"""

import asyncio
import sys
from datetime import timedelta

from pydantic import BaseModel

from streamworker import NoReply, Reject, RequestFailed, StreamWorker

app = StreamWorker(group="pricing")
PRICES = {"tea": 250, "coffee": 320}


class Quote(BaseModel):
    """What something costs."""

    sku: str
    cents: int


@app.handler("quotes")
async def quote(question: dict[str, str]) -> Quote:
    if question["sku"] not in PRICES:
        raise Reject(f"there is no {question['sku']}")
    return Quote(sku=question["sku"], cents=PRICES[question["sku"]])


async def main(sku: str) -> None:
    async with app:
        try:
            answer = await app.request("quotes", {"sku": sku}, reply=Quote, timeout=timedelta(seconds=5))
        except NoReply as late:
            sys.exit(f"ask again later: {late}")
        except RequestFailed as failed:
            sys.exit(failed.error)
    print(answer.cents)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
