//! Services whose endpoints come and go, or never come.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use cellwall_e2e::attempt::{self, Outcome, Transport};
use cellwall_e2e::heartbeat::Heartbeat;
use serde_json::json;

use crate::objects::{ECHO, policy};
use crate::scene::{ATTEMPTS, PATIENCE, Scene, both};

/// A port that no Service has.
const NO_PORT: u16 = 83;

impl Scene {
    /// Without endpoints it is kube-proxy that refuses: nothing was judged and nothing denied, for there is nobody to deny.
    /// Beside it, at a port that the Service does not have, nothing is translated, and policy denies the address itself.
    pub(crate) fn nobody(&self) {
        let cluster = self.serve("nobody", &json!({"selector": {"late": "yes"}}));
        let to = |family: usize, port: u16| SocketAddr::new(cluster[family], port);
        both(|family| self.until_ends("nobody", to(family, 80), Outcome::Refused));
        // Counters are read once a second: these are more than anything else adds in a few.
        self.counts("deferred", 2 * ATTEMPTS, || {
            both(|family| self.all_end("nobody", to(family, 80), Outcome::Refused, ATTEMPTS));
        });
        self.counts("default_deny", 2 * ATTEMPTS, || {
            both(|family| self.all_end("no port", to(family, NO_PORT), Outcome::Silent, ATTEMPTS));
        });
    }

    /// The same Service with an endpoint that is allowed, with one that is denied, and with none again.
    pub(crate) fn endpoints_that_come_and_go(&self) {
        let cluster = self.cluster_addresses("nobody");
        let to = |family: usize| SocketAddr::new(cluster[family], 80);
        for pod in ["good", "bad"] {
            self.kubectl(&format!("label pod {pod} late=yes"), "");
            both(|family| {
                let backend = [SocketAddr::new(self.pod(pod)[family], 8080)];
                self.judges("an endpoint that came", to(family), Transport::Tcp, &backend);
            });
            self.kubectl(&format!("label pod {pod} late-"), "");
            both(|family| self.until_ends("an endpoint that went", to(family), Outcome::Refused));
        }
    }

    /// A connection that runs stays with its backend when the Service leaves it.
    pub(crate) fn live_connections(&self) {
        let ports = json!([{"name": "echo", "port": 80, "targetPort": ECHO}]);
        let cluster = self.serve("live", &json!({"selector": {"app": "good"}, "ports": ports}));
        let mut wider = policy();
        wider["metadata"]["name"] = json!("echo");
        wider["spec"]["egress"] = json!([{"to": [{"podSelector": {"matchLabels": {"app": "good"}}}],
            "ports": [{"port": ECHO}]}]);
        self.apply(&wider);
        let live = [0, 1].map(|family| (family, SocketAddr::new(cluster[family], 80)));
        let heartbeats = live.map(|(family, to)| self.heartbeat(family, to));
        self.serve("live", &json!({"selector": {"app": "bad"}, "ports": ports}));
        both(|family| {
            let (_, to) = live[family];
            self.until_ends("the Service has another backend", to, Outcome::Silent);
            let backend = [SocketAddr::new(self.pod("bad")[family], ECHO)];
            self.judges("another backend", to, Transport::Tcp, &backend);
            let moved = Instant::now();
            while moved.elapsed() < Duration::from_secs(2) {
                heartbeats[family].until_answered_after(Instant::now(), PATIENCE).expect("it goes on");
                thread::sleep(Duration::from_millis(20));
            }
        });
        // Policy still holds it.
        self.kubectl("delete networkpolicy echo", "");
        for heartbeat in &heartbeats {
            heartbeat.until_silent(Instant::now(), PATIENCE).expect("it is cut with its policy");
        }
    }

    /// A connection of the client to the echo behind a Service.
    fn heartbeat(&self, family: usize, to: SocketAddr) -> Heartbeat {
        let from = self.pod("client")[family];
        let begun = Instant::now();
        let stream = loop {
            match self.cluster.in_pod(from, || attempt::connect(from, to)).expect("its network") {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "the echo behind {to}: {error}"),
            }
        };
        let heartbeat = Heartbeat::over(stream).expect("a connection");
        heartbeat.until_answered_after(Instant::now(), PATIENCE).expect("it works");
        heartbeat
    }
}
