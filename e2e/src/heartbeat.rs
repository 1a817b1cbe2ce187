//! One TCP connection that is used all the time, so that the moment it is cut shows.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

const PAUSE: Duration = Duration::from_millis(2);
/// Without an answer for this long a connection is cut. Answers come within a millisecond.
const SILENCE: Duration = Duration::from_millis(600);

/// A connection in use.
#[derive(Debug)]
pub struct Heartbeat {
    start: Instant,
    /// When the last answer came, in microseconds since the start.
    last_us: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Sends a byte and waits for its echo, again and again, until the connection breaks.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let heartbeat = Self { start: Instant::now(), last_us: Arc::default() };
        let (start, last_us) = (heartbeat.start, Arc::clone(&heartbeat.last_us));
        thread::spawn(move || beat(stream, start, &last_us));
        Ok(heartbeat)
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_micros(self.last_us.load(Ordering::Relaxed))
    }

    /// How long after `moment` an answer came, once there is one.
    pub fn until_answered_after(&self, moment: Instant, patience: Duration) -> Result<Duration> {
        while self.last() <= moment {
            ensure!(moment.elapsed() < patience, "no answer within {patience:?}");
            thread::sleep(Duration::from_micros(100));
        }
        Ok(self.last() - moment)
    }

    /// How long after `moment` the last answer came, once there are none any more.
    pub fn until_silent(&self, moment: Instant, patience: Duration) -> Result<Duration> {
        while self.last().elapsed() < SILENCE {
            ensure!(moment.elapsed() < patience, "the connection still works after {patience:?}");
            thread::sleep(PAUSE);
        }
        Ok(self.last().saturating_duration_since(moment))
    }
}

fn beat(mut stream: TcpStream, start: Instant, last_us: &AtomicU64) {
    let mut byte = [0];
    while stream.write_all(&byte).is_ok() {
        // A byte that is lost is sent again by TCP, and until it is answered there is no next one.
        loop {
            match stream.read_exact(&mut byte) {
                Ok(()) => break,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
        let now = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        last_us.store(now, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
}

/// Answers each byte with the same byte, on every connection, for as long as this process lives.
pub fn echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
}

fn answer(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
}
