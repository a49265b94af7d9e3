//! One connection: the tap on its socket, and the body of an event stream.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
};

use super::mischief::Chunks;

/// What is to be done to a connection from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Close it, whatever is under way.
    Cut,
    /// Neither read nor write any more, but leave it open.
    Freeze,
}

/// What a connection turned out to be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Unknown,
    Stream,
    Calls,
}

/// A connection as the rest of the agent sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub id: u64,
    /// It came in by the domain socket.
    pub domain: bool,
    pub used: Cell<Use>,
    /// Calls other than SUBSCRIBE so far.
    pub calls: Cell<u32>,
    order: Cell<Option<Order>>,
    ordered: Notify,
    /// Cut as soon as all that was written has left.
    cut_when_flushed: Cell<bool>,
}

impl Link {
    pub(super) fn new(id: u64, domain: bool) -> Rc<Self> {
        Rc::new(Link {
            id,
            domain,
            used: Cell::new(Use::Unknown),
            calls: Cell::new(0),
            order: Cell::new(None),
            ordered: Notify::new(),
            cut_when_flushed: Cell::new(false),
        })
    }

    pub(super) fn order(&self, order: Order) {
        self.order.set(Some(order));
        self.ordered.notify_one();
    }

    /// The next order; dropping this future loses none.
    pub(super) async fn next_order(&self) -> Order {
        loop {
            if let Some(order) = self.order.take() {
                return order;
            }
            self.ordered.notified().await;
        }
    }
}

/// A socket under hyper: counts nothing, but can write in tiny portions and knows when all is flushed.
#[derive(Debug)]
pub(super) struct Tap<S> {
    pub socket: S,
    pub link: Rc<Link>,
    /// Bytes per write.
    pub segment: Option<usize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let portion = buf.len().min(self.segment.unwrap_or(usize::MAX).max(1));
        let (portion, _) = buf.split_at(portion);
        Pin::new(&mut self.socket).poll_write(cx, portion)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.segment.is_none() && self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        if flushed.is_ready() && self.link.cut_when_flushed.get() {
            self.link.order(Order::Cut);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What goes into an event stream. Dropping the sender ends the stream properly.
#[derive(Debug)]
pub(super) enum Item {
    Bytes(Bytes),
    /// Close the connection once everything before is on its way, without ending the response.
    Cut,
}

/// Told that a stream is gone: its connection, by number.
pub(super) type OnClose = Box<dyn FnOnce(u64)>;

/// The body of a response.
pub(super) enum Answer {
    Whole(Option<Bytes>),
    Events(Box<Events>),
}

/// The receiving end of an event stream.
pub(super) struct Events {
    items: UnboundedReceiver<Item>,
    chunks: Chunks,
    /// What did not fit into the last chunk.
    rest: BytesMut,
    cut: bool,
    link: Rc<Link>,
    on_close: RefCell<Option<OnClose>>,
}

impl Events {
    pub(super) fn new(link: Rc<Link>, chunks: Chunks, on_close: OnClose) -> (UnboundedSender<Item>, Self) {
        let (sender, items) = unbounded_channel();
        let events = Events {
            items,
            chunks,
            rest: BytesMut::new(),
            cut: false,
            link,
            on_close: RefCell::new(Some(on_close)),
        };
        (sender, events)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let limit = match self.chunks {
            Chunks::OnePerRecord => {
                return match self.poll_bytes(cx) {
                    Poll::Ready(bytes) => Poll::Ready(bytes),
                    Poll::Pending => Poll::Pending,
                };
            }
            Chunks::Every(limit) => limit.max(1),
            Chunks::Coalesced => usize::MAX,
        };
        while self.rest.len() < limit {
            match self.poll_bytes(cx) {
                Poll::Ready(Some(bytes)) => self.rest.extend_from_slice(&bytes),
                Poll::Ready(None) if self.rest.is_empty() => return Poll::Ready(None),
                Poll::Pending if self.rest.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        let length = self.rest.len().min(limit);
        Poll::Ready(Some(self.rest.split_to(length).freeze()))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.cut {
            return Poll::Pending;
        }
        match self.items.poll_recv(cx) {
            Poll::Ready(Some(Item::Bytes(bytes))) => Poll::Ready(Some(bytes)),
            Poll::Ready(Some(Item::Cut)) => {
                self.cut = true;
                // Hyper flushes as soon as a body has nothing more to give; see `Tap::poll_flush`.
                self.link.cut_when_flushed.set(true);
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(on_close) = self.on_close.take() {
            on_close(self.link.id);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = match &mut *self {
            Answer::Whole(bytes) => Poll::Ready(bytes.take()),
            Answer::Events(events) => events.poll_chunk(cx),
        };
        chunk.map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Answer::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Answer::Events(_) => hyper::body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_segmented_tap_writes_in_portions() {
        let (socket, _peer) = duplex(64);
        let mut tap = Tap {
            socket,
            link: Link::new(1, false),
            segment: Some(3),
        };
        assert_eq!(tap.write(b"hello").await.unwrap(), 3);
        tap.segment = None;
        assert_eq!(tap.write(b"hello").await.unwrap(), 5);
    }

    #[tokio::test]
    async fn orders_are_not_lost_when_nobody_waits() {
        let link = Link::new(1, false);
        link.order(Order::Freeze);
        assert_eq!(link.next_order().await, Order::Freeze);
        link.order(Order::Cut);
        assert_eq!(link.next_order().await, Order::Cut);
    }
}
