"""The page as a person uses it."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page

from page.page_server import PageServer


class Chat:
    """A page that is open at a server."""

    def __init__(self, page: Page, server: PageServer) -> None:
        self.page = page
        self.server = server
        page.goto(server.url)

    @classmethod
    def ready(cls, page: Page, server: PageServer) -> Chat:
        """With the model's name on it."""
        chat = cls(page, server)
        page.locator("#status[data-state=ready]").wait_for()
        return chat

    @property
    def status(self) -> Locator:
        return self.page.locator("#status")

    @property
    def message(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def answer(self) -> Locator:
        """The last one, whole."""
        return self.page.locator(".turn.assistant").last

    @property
    def text(self) -> Locator:
        """Of the last answer."""
        return self.answer.locator(".body")

    @property
    def toast(self) -> Locator:
        return self.page.locator("#toast.shown")

    @property
    def attachments(self) -> Locator:
        return self.page.locator("#attachments img")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        self.message.fill(text)
        self.message.press("Enter")

    def ask(self, text: str) -> Locator:
        """Sends, and waits until the answer is complete."""
        self.send(text)
        return self.complete()

    def complete(self) -> Locator:
        """The text of the last answer, once there is no more to come."""
        self.page.locator(".turn.assistant:last-child[aria-busy=false]").wait_for()
        self.page.locator("#send").wait_for()
        return self.text

    def set(self, **fields: str) -> None:
        """Settings, by their ids."""
        for name, value in fields.items():
            self.page.locator(f"#{name}").fill(value)

    def copied(self, button: str) -> str:
        """What a button puts into the clipboard."""
        self.page.evaluate("navigator.clipboard.writeText('')")
        self.button(button).click()
        self.page.locator("#toast.shown", has_text=re.compile("clipboard|Copied")).wait_for()
        return str(self.page.evaluate("navigator.clipboard.readText()"))
