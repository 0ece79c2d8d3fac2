"""Outbound mail, one name for callers: accept, step (record and claim), begin data, recover, and what people ask.

Each is one transaction. The ideas stand in files of their own: `outbox_accept`, `outbox_claim`, `outbox_record`,
`outbox_step`, `outbox_ask`, `outbox_view`; beside them `doubts` and `copies`, which evidence works on.
"""

from gateway.state.outbox_accept import Accepted as Accepted
from gateway.state.outbox_accept import Accepting as Accepting
from gateway.state.outbox_accept import accept as accept
from gateway.state.outbox_ask import Ask as Ask
from gateway.state.outbox_ask import Asked as Asked
from gateway.state.outbox_ask import Settle as Settle
from gateway.state.outbox_ask import cancel as cancel
from gateway.state.outbox_ask import hold as hold
from gateway.state.outbox_ask import release as release
from gateway.state.outbox_ask import retry as retry
from gateway.state.outbox_ask import settle as settle
from gateway.state.outbox_claim import Claimed as Claimed
from gateway.state.outbox_claim import Outlook as Outlook
from gateway.state.outbox_claim import Recipient as Recipient
from gateway.state.outbox_claim import Want as Want
from gateway.state.outbox_claim import outlook as outlook
from gateway.state.outbox_record import Done as Done
from gateway.state.outbox_record import Fated as Fated
from gateway.state.outbox_record import Told as Told
from gateway.state.outbox_record import recover as recover
from gateway.state.outbox_record import recover_lane as recover_lane
from gateway.state.outbox_step import Begin as Begin
from gateway.state.outbox_step import Step as Step
from gateway.state.outbox_step import begin_data as begin_data
from gateway.state.outbox_step import read_chunk as read_chunk
from gateway.state.outbox_step import step as step
from gateway.state.outbox_view import Stopped as Stopped
from gateway.state.outbox_view import count_open as count_open
from gateway.state.outbox_view import count_unsigned as count_unsigned
from gateway.state.outbox_view import is_signed_already as is_signed_already
from gateway.state.outbox_view import list_outbox as list_outbox
from gateway.state.outbox_view import show_outbox as show_outbox
