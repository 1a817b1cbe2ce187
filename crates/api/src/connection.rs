//! One accepted connection: its peer is allowed, it holds one of the places, and it does not stay silent for ever.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use cellwall_abi::planted;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::limits::Limits;
use crate::port::Port;
use crate::socket::Socket;

/// A connection that tonic serves. tonic has a time-out for a call and one for a living peer; neither begins
/// before the handshake ended, so this one counts from the first moment.
pub(crate) struct Connection<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    idle: Duration,
    _place: OwnedSemaphorePermit,
}

/// Accepts, for ever. Peers other than root and our own user are closed unheard.
pub(crate) fn accept(
    socket: Socket,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection<UnixStream>>> {
    let places = Arc::new(Semaphore::new(limits.connections));
    futures::stream::unfold((socket, places), move |(socket, places)| async move {
        let connection = loop {
            let (stream, _) = accepted(|cx| socket.listener.poll_accept(cx)).await;
            if let Some(connection) = admit(stream, &places, limits.idle) {
                break connection;
            }
        };
        Some((Ok(connection), (socket, places)))
    })
}

/// Accepts, for ever. Whoever does not end the handshake in time is closed; a slow one holds nobody up.
pub(crate) fn accept_remote(
    port: Port,
    limits: Limits,
) -> impl Stream<Item = io::Result<Connection<TlsStream<TcpStream>>>> {
    let places = Arc::new(Semaphore::new(limits.connections));
    let acceptor = port.identity.acceptor.clone();
    let taken = futures::stream::unfold((port, places), |(port, places)| async move {
        let taken = loop {
            let (stream, peer) = accepted(|cx| port.listener.poll_accept(cx)).await;
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                break (stream, peer, place);
            }
            debug!(%peer, "refused a connection: too many are open");
        };
        Some((taken, (port, places)))
    });
    let shaken = taken.map(move |(stream, peer, place)| {
        let patience =
            if planted("handshakes-take-their-time") { Duration::from_hours(1) } else { limits.handshake };
        let handshake = timeout(patience, acceptor.accept(stream));
        async move {
            match handshake.await {
                Ok(Ok(stream)) => Some(Ok(Connection::new(stream, limits.idle, place))),
                Ok(Err(error)) => {
                    debug!(%peer, %error, "closed a connection that does not speak TLS as we do");
                    None
                }
                Err(_) => {
                    debug!(%peer, "closed a connection whose handshake did not end");
                    None
                }
            }
        }
    });
    shaken.buffer_unordered(limits.connections).filter_map(std::future::ready)
}

/// The next one that can be had.
async fn accepted<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>) -> T {
    loop {
        match poll_fn(&mut poll).await {
            Ok(accepted) => return accepted,
            // Out of descriptors or memory: it passes, and the listener is still good.
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(stream: UnixStream, places: &Arc<Semaphore>, idle: Duration) -> Option<Connection<UnixStream>> {
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
    Some(Connection::new(stream, idle, place))
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl<S> Connection<S> {
    fn new(stream: S, idle: Duration, place: OwnedSemaphorePermit) -> Self {
        Self { stream, deadline: Box::pin(sleep(idle)), idle, _place: place }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
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

impl<S> Connected for Connection<S> {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}
