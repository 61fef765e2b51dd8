"""What is kept of calls: nothing that stands in the trace already."""

from fairlead.router import CONTINUED, recorded
from fairlead.types import Call, Message, Outcome, Query, Step

QUERY = Query.ask("a question", id="q")


def kept(*messages: Message) -> Call:
    step = Step(path=(0, 0), call=Call(target="a", messages=messages), outcome=Outcome(text="x", reply=b"bytes"))
    found = recorded(step, QUERY)
    assert found.outcome.reply == b""
    assert found.call is not None
    return found.call


def test_the_querys_own_messages_are_left_out_and_counted() -> None:
    more = Message(role="user", content="and now?")
    call = kept(*QUERY.messages, more)
    assert (call.after, call.messages) == (1, (more,))
    written = kept(Message(role="user", content="a question"))  # written by a plan, alike by chance
    assert (written.after, written.messages) == (0, (Message(role="user", content="a question"),))


def test_what_is_gone_on_from_is_cut_and_what_is_short_is_not() -> None:
    for size in (10, 5_000):
        text = "".join(str(i % 10) for i in range(size))
        call = kept(*QUERY.messages, Message(role="assistant", content=text))
        assert call.messages is not None
        assert call.messages[0].text == (text if size <= CONTINUED else "… " + text[-CONTINUED:])


def test_a_call_of_the_query_itself_is_kept_as_it_is() -> None:
    call = Call(target="a")
    assert recorded(Step(path=(0, 0), call=call, outcome=Outcome()), QUERY).call is call
