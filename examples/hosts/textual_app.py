"""A terminal program made with Textual: a button starts a run, a bar follows it. Run it: `python textual_app.py`.

Textual runs on asyncio, so the Server lives in the same loop: a worker of Textual reads the events of each run.
"""

from typing import ClassVar

from jobs import JOB, Count
from textual.app import App, ComposeResult
from textual.widgets import Button, Footer, Label, ProgressBar

from scattersphere import Server


class Counter(App[None]):
    """One Server for as long as the program runs."""

    BINDINGS: ClassVar = [("s", "start", "Start"), ("c", "cancel", "Cancel"), ("q", "quit", "Quit")]

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Label("nothing runs", id="state")
        yield ProgressBar(id="bar", show_eta=False)
        yield Button("Start", id="start")
        yield Footer()

    async def on_mount(self) -> None:
        """Enter the Server when the program starts."""
        self.server = Server(grace=2)
        await self.server.__aenter__()
        self.server.register_tasks("app", [Count])
        self.server.define(JOB)

    async def on_unmount(self) -> None:
        """Leave it when the program ends: what still runs is cancelled."""
        await self.server.aclose()

    def on_button_pressed(self) -> None:
        """Start a run by the button."""
        self.action_start()

    def action_start(self) -> None:
        """Start a run, and follow it beside whatever else the program does."""
        self.run_worker(self.follow(), exclusive=True)

    def action_cancel(self) -> None:
        """Cancel what runs."""
        for run in self.server.runs.values():
            if not run.state.ended:
                run.cancel("by a key")

    async def follow(self) -> None:
        """Show a run from its first event to its last."""
        run = await self.server.start("count", {"n": 30})
        bar, label = self.query_one(ProgressBar), self.query_one(Label)
        async for event in run.events():
            if event.done is not None:
                bar.update(total=event.total, progress=event.done)
            label.update(f"run {run.id}: {run.state}")


if __name__ == "__main__":
    Counter().run()
