//! Two nodes, three namespaces, seven pods, and the words to ask about them.

use core::net::IpAddr;

use cellwall_oracle::{
    Flow, Objects, Ruling,
    api::{NetworkPolicy, Pod},
    decide,
};
use cellwall_policy::flow::{
    Decision::{self, Allow, Deny},
    Direction, Protocol,
};

/// On this node: x/a, x/b and z/a, whose `web` is 80, 8080 and 80. Elsewhere: y/a, y/b, and z/host in its node's
/// network.
const WORLD: &str = "
nodeName: n1
nodeAddresses: [192.168.0.1, 10.1.0.254]
nodes:
- {metadata: {name: n1}, spec: {podCIDR: 10.1.0.0/24, podCIDRs: [10.1.0.0/24, 'fd00:1::/64']},
   status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: Hostname, address: n1}]}}
- {metadata: {name: n2}, spec: {podCIDR: 10.2.0.0/24, podCIDRs: [10.2.0.0/24, 'fd00:2::/64']},
   status: {addresses: [{type: InternalIP, address: 192.168.0.2}]}}
namespaces:
- {metadata: {name: x, labels: {ns: x, tier: front}}}
- {metadata: {name: y, labels: {ns: y, tier: back}}}
- {metadata: {name: z, labels: {ns: z}}}
pods:
- metadata: {namespace: x, name: a, labels: {pod: a, app: web, empty: ''}}
  spec: {nodeName: n1, containers: [{name: c, ports: [
    {name: web, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]}]}
  status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}, {ip: 'fd00:1::1'}]}
- metadata: {namespace: x, name: b, labels: {pod: b, app: web}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
  status: {phase: Running, podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.2}, {ip: 'fd00:1::2'}]}
- metadata: {namespace: z, name: a, labels: {pod: a}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 80}]}]}
  status: {phase: Running, podIP: 10.1.0.3}
- metadata: {namespace: y, name: a, labels: {pod: a, app: db}}
  spec: {nodeName: n2, containers: [{name: c, ports: [{name: web, containerPort: 81}]}]}
  status: {phase: Running, podIP: 10.2.0.1, podIPs: [{ip: 10.2.0.1}, {ip: 'fd00:2::1'}]}
- metadata: {namespace: y, name: b, labels: {pod: b}}
  spec: {nodeName: n2, containers: [{name: c}]}
  status: {phase: Running, podIP: 10.2.0.2, podIPs: [{ip: 10.2.0.2}, {ip: 'fd00:2::2'}]}
- metadata: {namespace: z, name: host, labels: {pod: a}}
  spec: {nodeName: n2, hostNetwork: true, containers: [{name: c, ports: [{name: web, containerPort: 80}]}]}
  status: {phase: Running, podIP: 192.168.0.2}
- metadata: {namespace: x, name: pending, labels: {pod: a}}
  spec: {nodeName: n1, containers: [{name: c}]}
  status: {phase: Pending}
";

pub(crate) fn world() -> Objects {
    serde_saphyr::from_str(WORLD).expect("the world parses")
}

/// Changes to a world, one after the other.
pub(crate) trait Edit: Sized {
    /// With a policy of namespace x that has this spec.
    fn policy(self, spec: &str) -> Self {
        self.policy_in("x", spec)
    }
    fn policy_in(self, namespace: &str, spec: &str) -> Self;
    /// With one more pod.
    fn pod(self, yaml: &str) -> Self;
    /// Without the pod.
    fn no_pod(self, name: &str) -> Self;
}

impl Edit for Objects {
    fn policy_in(mut self, namespace: &str, spec: &str) -> Self {
        let name = format!("p{}", self.policies.len());
        let yaml = format!("{{metadata: {{namespace: {namespace}, name: {name}}}, spec: {spec}}}");
        let policy: NetworkPolicy = serde_saphyr::from_str(&yaml).expect("the policy parses");
        self.policies.push(policy);
        self
    }

    fn pod(mut self, yaml: &str) -> Self {
        self.pods.push(serde_saphyr::from_str(yaml).expect("the pod parses"));
        self
    }

    fn no_pod(mut self, name: &str) -> Self {
        let before = self.pods.len();
        self.pods.retain(|pod| full_name(pod) != name);
        assert_eq!(self.pods.len() + 1, before, "{name} is in the world");
        self
    }
}

fn full_name(pod: &Pod) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&pod.metadata.namespace), part(&pod.metadata.name))
}

/// What a whole table expects: flows that pass, and flows that do not.
pub(crate) fn check(objects: &Objects, allowed: &[&str], denied: &[&str]) {
    for (lines, expected) in [(allowed, Allow), (denied, Deny)] {
        for line in lines {
            assert_eq!(rule(objects, line).decision, expected, "{line}\n{:#?}", rule(objects, line));
        }
    }
}

/// The same for one policy of namespace x in the unchanged world.
pub(crate) fn check_policy(spec: &str, allowed: &[&str], denied: &[&str]) {
    check(&world().policy(spec), allowed, denied);
}

pub(crate) fn decision(objects: &Objects, line: &str) -> Decision {
    rule(objects, line).decision
}

pub(crate) fn rule<'a>(objects: &'a Objects, line: &str) -> Ruling<'a> {
    decide(objects, &flow(objects, line))
}

fn flow(objects: &Objects, line: &str) -> Flow {
    let words: Vec<_> = line.split_whitespace().collect();
    let (&[local, arrow, remote, protocol, port], rest) = words.split_at(5) else { unreachable!() };
    let direction = match arrow {
        "<-" => Direction::Ingress,
        "->" => Direction::Egress,
        _ => panic!("no direction in {line}"),
    };
    let protocol = match protocol {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        "ICMP" => Protocol::ICMP,
        _ => panic!("no protocol in {line}"),
    };
    let (local, remote) = (address(objects, local), address(objects, remote));
    assert_eq!(local.is_ipv4(), remote.is_ipv4(), "one family in {line}");
    Flow {
        local,
        direction,
        remote,
        from_own_node: rest == ["node"],
        protocol,
        port: port.parse().expect("a port"),
    }
}

fn address(objects: &Objects, word: &str) -> IpAddr {
    if let Ok(address) = word.parse() {
        return address;
    }
    let (name, ipv6) = word.strip_suffix('6').map_or((word, false), |name| (name, true));
    let pod = objects.pods.iter().find(|p| full_name(p) == name);
    let status = pod.and_then(|p| p.status.as_ref()).unwrap_or_else(|| panic!("no pod {word}"));
    let all = status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|ip| &ip.ip));
    all.filter_map(|ip| ip.parse().ok())
        .find(|ip: &IpAddr| ip.is_ipv6() == ipv6)
        .unwrap_or_else(|| panic!("no address of {word}"))
}
