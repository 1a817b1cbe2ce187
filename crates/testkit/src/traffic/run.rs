//! Many flows at once, beside packets that are denied.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use super::{End, Tally};
use crate::net::Host;

/// Who talks with whom.
#[derive(Clone, Debug)]
pub struct Ends<'a> {
    /// Opens the flows.
    pub client: Host<'a>,
    /// Answers them.
    pub server: Host<'a>,
    /// Senders, each with whom it must not reach.
    pub denied: Vec<(Host<'a>, Host<'a>)>,
}

/// What all senders have done.
#[derive(Debug, Default)]
pub struct Run {
    /// When they end.
    pub end: End,
    /// Even ones are of TCP, odd ones of UDP; of two neighbours each, IPv4 and IPv6.
    pub flows: Vec<Tally>,
    /// Of each sender of denied packets.
    denied: Vec<Tally>,
}

impl Run {
    /// Of so many flows of each protocol, and so many senders of denied packets.
    pub fn new(flows: usize, denied: usize) -> Self {
        let tallies = |count| (0..count).map(|_| Tally::default()).collect();
        Self { end: End::default(), flows: tallies(2 * flows), denied: tallies(denied) }
    }

    /// Starts the flows, half of each protocol and family, and the denied packets.
    pub fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, ends: &Ends<'s>) {
        assert_eq!(ends.denied.len(), self.denied.len(), "senders of denied packets");
        super::echo(scope, ends.server, &self.end);
        let until = (&self.end.stop, &self.end);
        for (number, tally) in self.flows.iter().enumerate() {
            let way = (ends.client, ends.server.addresses[number / 2 % 2]);
            if number % 2 == 0 {
                super::tcp(scope, way, until, tally);
            } else {
                super::udp(scope, way, until, tally);
            }
        }
        for (way, tally) in ends.denied.iter().zip(&self.denied) {
            super::denied(scope, *way, &self.end.stop, tally);
        }
    }

    /// Flows that a reset or a missing answer has ended.
    pub fn broken(&self) -> usize {
        self.flows.iter().filter(|flow| flow.broken.load(Relaxed)).count()
    }

    /// What became of broken flows, by number.
    pub fn late(&self) -> Vec<(usize, &str)> {
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| flow.broken.load(Relaxed));
        flows.map(|(number, flow)| (number, flow.why.get().map_or("", String::as_str))).collect()
    }

    /// Questions of all flows.
    pub fn sent(&self) -> u64 {
        self.flows.iter().map(|flow| flow.sent.load(Relaxed)).sum()
    }

    /// Answers to them.
    pub fn answered(&self) -> u64 {
        self.flows.iter().map(|flow| flow.answered.load(Relaxed)).sum()
    }

    /// Packets that were sent to be denied.
    pub fn denied(&self) -> u64 {
        self.denied.iter().map(|sender| sender.sent.load(Relaxed)).sum()
    }

    /// Waits until every flow that is not broken has had some more answers.
    pub fn go_on(&self, patience: Duration) {
        let start = Instant::now();
        for flow in &self.flows {
            let goal = flow.answered.load(Relaxed) + 3;
            while flow.answered.load(Relaxed) < goal
                && !flow.broken.load(Relaxed)
                && start.elapsed() < patience
            {
                sleep(Duration::from_millis(10));
            }
        }
    }
}
