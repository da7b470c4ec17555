"""The milter: asyncio around `core.milter`. Postfix `smtpd_milters`, Sendmail `INPUT_MAIL_FILTER`.

A connection that breaks the protocol, or that we lose, is closed; the mail server then does what its own
default action says (keep Postfix's `milter_default_action = tempfail`): the client tries again.
"""

from __future__ import annotations

import asyncio
import logging

from brandproxy.context import Context
from brandproxy.core.milter import ProtocolError, Session, Step
from brandproxy.errors import Retryable
from brandproxy.filters import listening
from brandproxy.filters.control import Said
from brandproxy.filters.listening import Client, client_of
from brandproxy.filters.lookup import Identity
from brandproxy.filters.peers import Peers, check, listeners
from brandproxy.filters.pipeline import Arrival, Pipeline
from brandproxy.grants import Grant

log = logging.getLogger(__name__)

_READ = 1 << 18
_IDLE = 7200.0  # seconds; mail servers may keep a connection open between messages


class Connection:
    """One connection of a mail server; a member of `others` as long as it lasts.

    `peers`: the mail servers let in, since they name the logins. `grant`: of mail without a login.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        max_message: int,
        others: set[Connection],
        peers: Peers,
        grant: Grant | None = None,
        client: Client | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._peers, self._grant, self._client = peers, grant, client
        self._session = Session(max_message)
        self._others = others
        self._writer: asyncio.StreamWriter | None = None
        self._said: Said | None = None  # by the headers of the message underway

    @property
    def idle(self) -> bool:
        return self._session.idle

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An asyncio.start_server callback."""
        client = self._client or client_of(writer.get_extra_info("peername"))
        if client.by_tcp and client.address not in self._peers:
            log.warning("milter: %s is not in mail.milter_networks", client.address)
            writer.close()
            return
        self._writer = writer
        self._others.add(self)
        try:
            await self._converse(reader, writer)
        except ProtocolError as error:
            log.warning("milter: %s: %s", writer.get_extra_info("peername"), error)
        except (OSError, TimeoutError):
            pass  # the mail server went away without an answer; it asks again with its next try
        finally:
            self._others.discard(self)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_IDLE):
                data = await reader.read(_READ)
            if not data:
                return
            closed = False
            for step in self._session.feed(data):
                if closed := step is Step.CLOSED:
                    break
                await self._answer(step)
            if out := self._session.output():
                writer.write(out)
                await writer.drain()
            if closed:
                return

    async def _answer(self, step: Step) -> None:
        session = self._session
        try:
            if step is Step.BEGUN:
                self._pipeline.check_load("milter")
                session.go_on()
            elif step is Step.HEADED:
                self._let_go_or_go_on()
            else:
                await self._finish()
        except Retryable as error:
            session.refuse(f"451 4.3.0 {error}")

    def _let_go_or_go_on(self) -> None:
        """A message that is nobody's by envelope and headers goes on before its body is sent to us."""
        head = self._session.message()
        self._said = None if head is None else self._pipeline.said(head)
        if head is not None and self._pipeline.is_nobodys(self._arrival(head)):
            self._session.accept()
        else:
            self._session.go_on()

    async def _finish(self) -> None:
        session = self._session
        before = None if session.mail.oversize else session.message()
        if before is None:
            self._pipeline.count("milter", "unreadable")
            session.accept()
            return
        outcome = await self._pipeline.process(self._arrival(before))
        session.finish(session.edits(before, outcome.message))

    def _arrival(self, message: bytes) -> Arrival:
        mail = self._session.mail
        return Arrival(
            "milter",
            message,
            sender=_text(mail.sender),
            recipients=tuple(map(_text, mail.recipients)),
            identity=Identity(login=_text(mail.user), listener=self._grant),
            queue_id=_text(mail.queue_id),
            said=self._said,
        )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


async def run(context: Context) -> None:
    """Serve at `mail.milter` until cancelled; what was begun is ended, within `mail.timeout` seconds."""
    mail = context.settings.mail
    check(mail)
    pipeline, peers, balancers = Pipeline(context), Peers(mail.milter_networks), Peers(mail.proxy_networks)
    await pipeline.start()
    async with asyncio.TaskGroup() as group:
        for where, grant in listeners(mail, "milter", ("milter", mail.milter)):
            connections: set[Connection] = set()

            def connect(
                client: Client | None,
                grant: Grant | None = grant,
                connections: set[Connection] = connections,
            ) -> asyncio.StreamReaderProtocol:
                reader = asyncio.StreamReader(limit=_READ)
                connection = Connection(pipeline, mail.max_message, connections, peers, grant, client)
                return asyncio.StreamReaderProtocol(reader, connection.run)

            server = await listening.listen(connect, where, balancers)
            log.info("milter listens at %s", where)
            group.create_task(listening.serve(server, connections, mail.timeout))
