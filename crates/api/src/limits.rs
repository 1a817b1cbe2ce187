//! How much of the agent its clients can take.

use std::time::Duration;

/// Bounds of the server. One client that does not read, or never finishes its handshake, costs one of the
/// connections and is cut off after [`Limits::idle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; one more is closed at once.
    pub connections: usize,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Largest request in bytes.
    pub request_bytes: usize,
    /// Largest answer in bytes.
    pub answer_bytes: usize,
    /// Largest header list in bytes.
    pub header_bytes: u32,
    /// After how long without a call's traffic a living client is asked for a sign of life.
    pub keepalive: Duration,
    /// After how long without one byte from the client its connection is closed, whatever it waits for.
    pub idle: Duration,
    /// After how long a handshake of TLS that has not ended is cut off; of the unix socket there is none.
    pub handshake: Duration,
    /// After how long a connection ends, whatever runs on it; none: when its client ends it.
    pub lifetime: Option<Duration>,
}

impl Limits {
    /// For those who ask from outside the node: people with a command, and whatever else is on the node. Who has lost the right to ask
    /// hears no more after `lifetime`, also on a stream.
    pub fn remote() -> Self {
        Self { connections: 32, streams: 8, lifetime: Some(Duration::from_mins(10)), ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // As many pods as a node may start at a time, each with a plugin that waits.
            connections: 256,
            streams: 32,
            request_bytes: 64 << 10,
            answer_bytes: ANSWER_BYTES,
            header_bytes: 16 << 10,
            keepalive: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            handshake: Duration::from_secs(5),
            lifetime: None,
        }
    }
}

/// Largest answer that server and client agree on.
pub(crate) const ANSWER_BYTES: usize = 32 << 20;
