"""What all calls of one guard share: its settings, its store, what it knows and whom it tells."""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread

from streamguard.catalog import Catalog
from streamguard.guard.answer_cache import Answers
from streamguard.guard.bookkeeper import Bookkeeper
from streamguard.guard.counter import PromptCounter
from streamguard.guard.learning import Learning
from streamguard.guard.refusals import Refusals
from streamguard.guard.settings import Settings
from streamguard.guard.store_policies import with_policies
from streamguard.guard.teller import Teller
from streamguard.sinks.base import Sink
from streamguard.sinks.structlog import StructlogSink
from streamguard.stores import open_store
from streamguard.stores.base import Store
from streamguard.stores.loops import Turn
from streamguard.tokenizers import warm_up


class Shared:
    """The parts of a guard; opened with the first call, closed once.

    Attributes:
        settings: how the guard behaves.
        catalog: windows and prices of models.
        teller: tells the sinks.
        books: the store, asked so that nothing is lost.
        counter: counts prompts.
        learning: what calls taught.
        refusals: what was refused as oversized.
        answers: the cache of answers, where one is set up.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | str = "memory://",
        catalog: Catalog | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        """``store`` is a Store or its URL; ``sinks`` default to structlog."""
        self.settings = settings
        self.catalog = catalog or Catalog()
        self.teller = Teller([StructlogSink()] if sinks is None else sinks)
        told = self.teller.store_error
        self.books = Bookkeeper(with_policies(open_store(store), settings, told), settings, told)
        self.counter = PromptCounter(settings)
        self.learning = Learning(settings, self.books, self.counter.calibrator)
        self.refusals = Refusals()
        self.answers = None if settings.cache is None else Answers(settings.cache, self.teller)
        self._opened = False
        self._opening = Turn()

    async def open(self) -> None:
        """Open the store and the sinks, load the newest tokenizer; later calls cost nothing."""
        if not self._opened:
            async with self._opening:
                await self._open_once()

    async def _open_once(self) -> None:
        if self._opened:  # by whoever was first
            return
        await self.books.open()
        await self.learning.load()
        await self.teller.open()
        await warm_up()
        # The first look-up loads the price list, which takes a while.
        await anyio.to_thread.run_sync(self.catalog.model_info, "")
        self._opened = True

    async def close(self) -> None:
        """Wait for settles under way, then close the store and the sinks."""
        await self.learning.save()
        await self.books.close()
        await self.teller.close()
        self._opened = False
