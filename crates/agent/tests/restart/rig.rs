//! The pods of these tests, what they may do, and the traffic between them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cellwall_testkit::net::Pod;
use cellwall_testkit::traffic::{Ends, Run, received};

use crate::world::World;

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

    /// Traffic of this rig that has not begun.
    pub(crate) fn traffic() -> Run {
        Run::new(FLOWS, 2)
    }

    /// Who talks with whom.
    pub(crate) fn ends(&self) -> Ends<'_> {
        let [server, client, stranger] = [&self.server, &self.client, &self.stranger].map(Pod::host);
        let [vault, prisoner, outside] = [&self.vault, &self.prisoner, &self.outside].map(Pod::host);
        Ends { client, server, denied: vec![(stranger, vault), (prisoner, outside)] }
    }

    /// Packets that arrived where none may.
    pub(crate) fn leaked(&self) -> u64 {
        received(self.vault.host()) + received(self.outside.host())
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
