//! One accepted connection: its peer is allowed, it holds one of the places, and it does not stay silent for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::limits::Limits;
use crate::socket::Socket;

/// A connection that tonic serves. tonic has a time-out for a call and one for a living peer; neither begins
/// before the handshake ended, so this one counts from the first moment.
pub(crate) struct Connection {
    stream: UnixStream,
    deadline: Pin<Box<Sleep>>,
    idle: Duration,
    _place: OwnedSemaphorePermit,
}

/// Accepts, for ever. Peers other than root and our own user are closed unheard.
pub(crate) fn accept(socket: Socket, limits: Limits) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(limits.connections));
    futures::stream::unfold((socket, places), move |(socket, places)| async move {
        let connection = loop {
            match socket.listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(connection) = admit(stream, &places, limits.idle) {
                        break connection;
                    }
                }
                // Out of descriptors or memory: it passes, and the listener is still good.
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        };
        Some((Ok(connection), (socket, places)))
    })
}

fn admit(stream: UnixStream, places: &Arc<Semaphore>, idle: Duration) -> Option<Connection> {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer,
        Err(error) => {
            warn!(%error, "refused a connection whose user is not known");
            return None;
        }
    };
    if peer.uid() != 0 && peer.uid() != own_uid() {
        warn!(uid = peer.uid(), pid = peer.pid(), "refused a connection of another user");
        return None;
    }
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        warn!(pid = peer.pid(), "refused a connection: too many are open");
        return None;
    };
    Some(Connection { stream, deadline: Box::pin(sleep(idle)), idle, _place: place })
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            let deadline = Instant::now() + self.idle;
            self.deadline.as_mut().reset(deadline);
            return Poll::Ready(read);
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}
