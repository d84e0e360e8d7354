"""The slow backend behind the demo: a database and a language model that really wait, and count what they are asked."""

import asyncio

import msgspec

ROW_SECONDS = 0.050
ANSWER_SECONDS = 1.200
ANSWER_USD = 0.005  # about 1,000 tokens in and 400 out at USD 1.25 and 10 a million

DATABASE_CONNECTIONS = 2048  # both are wide enough not to queue even without the cache, which flatters the "before"
MODEL_SLOTS = 2048

_GOODS = ("Trail shoe", "Rain jacket", "Kettlebell", "Yoga mat", "Heart-rate strap", "Protein bar", "Bike light")
_COLOURS = ("black", "red", "forest green", "navy", "sand", "white", "orange", "plum", "grey", "yellow", "teal")


class Product(msgspec.Struct, frozen=True):
    """A row of the shop's database."""

    number: int
    name: str
    price_cents: int
    stock: int
    description: str


class Backend:
    """The origin: every query waits 50 ms and every answer 1.2 s, divided by ``speed``, and both are counted."""

    def __init__(self, speed: float = 1.0) -> None:
        self.queries = 0
        self.answers = 0
        self.row_seconds = ROW_SECONDS / speed
        self.answer_seconds = ANSWER_SECONDS / speed
        self._new_prices: dict[int, int] = {}
        self._connections = asyncio.Semaphore(DATABASE_CONNECTIONS)
        self._slots = asyncio.Semaphore(MODEL_SLOTS)

    @property
    def usd(self) -> float:
        """What the model's answers cost so far."""
        return self.answers * ANSWER_USD

    async def query(self, number: int) -> Product:
        """One row by its number, as a database server would give it."""
        async with self._connections:
            self.queries += 1
            await asyncio.sleep(self.row_seconds)
        return self._row(number)

    async def ask(self, product: Product) -> str:
        """What the assistant's model says about a product."""
        async with self._slots:
            self.answers += 1
            await asyncio.sleep(self.answer_seconds)
        price = f"{product.price_cents / 100:.2f}"
        stock = f"{product.stock} are in stock" if product.stock else "it is sold out"
        return f"{product.name} (no. {product.number}) costs EUR {price}; {stock}. {product.description}"

    def reprice(self, number: int, price_cents: int) -> None:
        """Change a price at the source, as the shop's staff would; no cache is told."""
        self._new_prices[number] = price_cents

    def _row(self, number: int) -> Product:
        name = f"{_GOODS[number % len(_GOODS)]}, {_COLOURS[number % len(_COLOURS)]}"
        price_cents = self._new_prices.get(number, 990 + number * 37 % 9000)
        description = f"{name}: made to last, washed at 30 degrees, returned within 30 days free of charge. " * 3
        return Product(number, name, price_cents, number * 13 % 200, description)
