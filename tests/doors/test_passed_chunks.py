"""Chunks of an image pass the gateway as the bytes that came: clients read of them what the worker wrote."""

from hypothesis import given
from hypothesis import strategies as st

from t2i_gateway.events import PassedChunk, is_done, is_of_image, read_worker_event, size_of, write_event
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2

CHUNKS = st.builds(level_pb2.ImageChunk, offset=st.integers(0, 2**40), data=st.binary(max_size=3000))
INDICES = st.integers(0, 300)  # beyond one byte of a varint


@given(CHUNKS, INDICES)
def test_client_reads_what_the_worker_wrote(chunk: level_pb2.ImageChunk, index: int) -> None:
    """Also the number of the image, which no worker knows."""
    passed = read_worker_event(worker_pb2.WorkerEvent(chunk=chunk).SerializeToString())
    assert isinstance(passed, PassedChunk)
    passed.image_index = index
    read = gateway_pb2.GenerateEvent.FromString(write_event(passed))
    assert read == gateway_pb2.GenerateEvent(chunk=chunk, image_index=index)
    assert passed.data == chunk.data


@given(CHUNKS)
def test_first_image_costs_no_copy(chunk: level_pb2.ImageChunk) -> None:
    """The very bytes that came go out."""
    came = worker_pb2.WorkerEvent(chunk=chunk).SerializeToString()
    passed = read_worker_event(came)
    assert isinstance(passed, PassedChunk)
    assert write_event(passed) is came
    assert size_of(passed) == len(came)


def test_all_other_events_are_read() -> None:
    """The gateway decides by them, so none may pass unread."""
    for field in worker_pb2.WorkerEvent.DESCRIPTOR.oneofs_by_name["event"].fields:
        event = worker_pb2.WorkerEvent()
        getattr(event, field.name).SetInParent()
        came = read_worker_event(event.SerializeToString())
        assert isinstance(came, PassedChunk) == (field.name == "chunk"), field.name


def test_parts_of_an_image_are_known() -> None:
    """What waits for a safety check is the whole image, however it is held; nothing else waits."""
    chunk = PassedChunk(worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=b"x")).SerializeToString())
    image, done = (gateway_pb2.GenerateEvent() for _ in range(2))
    image.image.SetInParent()
    done.done.SetInParent()
    assert [is_of_image(one) for one in (chunk, image, done)] == [True, True, False]
    assert [is_done(one) for one in (chunk, image, done)] == [False, False, True]
