//! The pods of these tests, what they may do, and the traffic between them.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use cellwall_testkit::net::Pod;

use crate::traffic::{self, End, Tally};
use crate::world::{SOON, World};

/// Flows of each protocol.
pub(crate) const FLOWS: usize = 50;

/// A server with clients; a vault that nobody may reach, and one who tries; a prisoner who may reach nobody, and
/// somebody outside whom it tries to reach.
pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) server: Pod,
    pub(crate) client: Pod,
    pub(crate) stranger: Pod,
    vault: Pod,
    prisoner: Pod,
    outside: Pod,
    // Last, so that the next test waits until this one's node is gone.
    _turn: MutexGuard<'static, ()>,
}

/// Who may reach the server. What it sends itself is nobody's business, as of most servers.
const CLIENTS: &str = "ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]";

impl Rig {
    pub(crate) fn new(tag: &str) -> Option<Self> {
        // Hundreds of threads of two tests at a time would only wait for each other.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut world = World::new(tag)?;
        let outside = world.net.outside().expect("a host");
        world.policy("allow-clients", "server", CLIENTS);
        world.policy("closed", "vault", "policyTypes: [Ingress], ingress: []");
        world.policy("confined", "prisoner", "policyTypes: [Egress], egress: []");
        let [server, client, stranger, vault, prisoner] =
            ["server", "client", "stranger", "vault", "prisoner"].map(|name| world.pod(name));
        Some(Self { world, server, client, stranger, vault, prisoner, outside, _turn: turn })
    }

    /// Packets that arrived where none may.
    pub(crate) fn leaked(&self) -> u64 {
        traffic::received(&self.vault) + traffic::received(&self.outside)
    }

    /// An edit of the folder that changes the server's policy, the classes of addresses or both, and never what is
    /// allowed to the traffic of this rig.
    pub(crate) fn edit(&self, number: usize) {
        let world = &self.world;
        match number % 6 {
            0 => world.policy(
                "extra",
                "server",
                &format!("ingress: [{{from: [{{podSelector: {{matchLabels: {{app: guest-{number}}}}}}}]}}]"),
            ),
            1 => world.tell("stranger", &self.stranger, &format!("guest-{}", number - 1)),
            2 => world.policy(
                "extra",
                "server",
                &format!("ingress: [{{from: [{{ipBlock: {{cidr: 10.{}.0.0/16}}}}]}}]", number % 200 + 1),
            ),
            3 => world.policy(
                "more",
                "vault",
                &format!("ingress: [{{ports: [{{port: {}, protocol: SCTP}}]}}]", 100 + number),
            ),
            4 => world.remove("extra"),
            _ => world.remove("more"),
        }
    }
}

/// What all senders have done.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) end: End,
    pub(crate) flows: Vec<Tally>,
    pub(crate) denied: [Tally; 2],
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { flows: (0..2 * FLOWS).map(|_| Tally::default()).collect(), ..Self::default() }
    }

    /// Starts the flows, half of each protocol and family, and the denied packets.
    pub(crate) fn start<'s>(&'s self, scope: &'s Scope<'s, '_>, rig: &'s Rig) {
        traffic::echo(scope, &rig.server, &self.end);
        let until = (&self.end.stop, &self.end);
        for (number, tally) in self.flows.iter().enumerate() {
            let way = (&rig.client, rig.server.addresses()[number / 2 % 2]);
            if number % 2 == 0 {
                traffic::tcp(scope, way, until, tally);
            } else {
                traffic::udp(scope, way, until, tally);
            }
        }
        traffic::denied(scope, (&rig.stranger, &rig.vault), &self.end.stop, &self.denied[0]);
        traffic::denied(scope, (&rig.prisoner, &rig.outside), &self.end.stop, &self.denied[1]);
    }

    pub(crate) fn broken(&self) -> usize {
        self.flows.iter().filter(|flow| flow.broken.load(Relaxed)).count()
    }

    /// What became of broken flows, by number: even ones are TCP's, odd ones UDP's; of two neighbours each, IPv4 and IPv6.
    pub(crate) fn late(&self) -> Vec<(usize, &str)> {
        let flows = self.flows.iter().enumerate().filter(|(_, flow)| flow.broken.load(Relaxed));
        flows.map(|(number, flow)| (number, flow.why.get().map_or("", String::as_str))).collect()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.flows.iter().map(|flow| flow.sent.load(Relaxed)).sum()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.flows.iter().map(|flow| flow.answered.load(Relaxed)).sum()
    }

    pub(crate) fn denied(&self) -> u64 {
        self.denied.iter().map(|sender| sender.sent.load(Relaxed)).sum()
    }

    /// Waits until every flow has had some more answers.
    pub(crate) fn go_on(&self) {
        let start = Instant::now();
        for flow in &self.flows {
            let goal = flow.answered.load(Relaxed) + 3;
            while flow.answered.load(Relaxed) < goal && !flow.broken.load(Relaxed) && start.elapsed() < SOON {
                sleep(Duration::from_millis(10));
            }
        }
    }
}
