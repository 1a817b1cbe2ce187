//! Random policies: every field missing, empty and set, in a minority of cases what the API refuses.

use core::net::{IpAddr, Ipv6Addr};

use cellwall_oracle::{
    Objects,
    api::{
        IPBlock, IntOrString, LabelSelector, LabelSelectorRequirement, NetworkPolicy,
        NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec, ObjectMeta, Pod,
    },
};
use ipnet::IpNet;

use super::{
    rng::Rng,
    universe::{LABELS, NAMESPACES, PORT_NAMES, PORTS, PROTOCOLS, Place, Universe},
};

/// Of a hundred choices that can be invalid, so many are.
const INVALID: usize = 3;

pub(super) fn generate(universe: &Universe, objects: &Objects, rng: &mut Rng) -> Vec<NetworkPolicy> {
    let count = *rng.pick(&[0, 1, 2, 2, 3, 3, 4, 5]);
    (0..count).map(|index| policy(universe, objects, index, rng)).collect()
}

/// Mostly of the namespace of one of this node's pods, since the others isolate nobody here.
pub(super) fn policy(universe: &Universe, objects: &Objects, index: usize, rng: &mut Rng) -> NetworkPolicy {
    let is_here =
        |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&objects.node_name);
    let here: Vec<_> =
        objects.pods.iter().filter(is_here).filter_map(|pod| pod.metadata.namespace.as_deref()).collect();
    let namespace =
        if !here.is_empty() && rng.percent(80) { *rng.pick(&here) } else { *rng.pick(&NAMESPACES) };
    NetworkPolicy {
        metadata: ObjectMeta {
            namespace: Some(namespace.into()),
            name: Some(name(index)),
            uid: Some(format!("{index:08}-0000-4000-9000-000000000000")),
            ..ObjectMeta::default()
        },
        spec: (!rng.percent(1)).then(|| spec(universe, rng)),
    }
}

/// The first number that no policy's name has.
pub(super) fn unused(policies: &[NetworkPolicy]) -> usize {
    let is_free = |index: &usize| policies.iter().all(|p| p.metadata.name.as_ref() != Some(&name(*index)));
    (0..=policies.len()).find(is_free).expect("one more than there are")
}

fn name(index: usize) -> String {
    format!("policy{index}")
}

fn spec(universe: &Universe, rng: &mut Rng) -> NetworkPolicySpec {
    NetworkPolicySpec {
        pod_selector: subject(rng),
        policy_types: policy_types(rng),
        ingress: rng.field(15, 3, |rng| ingress_rule(universe, rng)),
        egress: rng.field(15, 3, |rng| egress_rule(universe, rng)),
    }
}

pub(super) fn subject(rng: &mut Rng) -> Option<LabelSelector> {
    (!rng.percent(10)).then(|| selector(rng, 60))
}

pub(super) fn ingress_rule(universe: &Universe, rng: &mut Rng) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: rng.field(12, 3, |rng| peer(universe, rng)),
        ports: rng.field(22, 3, port),
    }
}

pub(super) fn egress_rule(universe: &Universe, rng: &mut Rng) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: rng.field(12, 3, |rng| peer(universe, rng)), ports: rng.field(22, 3, port) }
}

pub(super) fn policy_types(rng: &mut Rng) -> Option<Vec<String>> {
    if rng.percent(INVALID) {
        return Some(rng.many(2, |rng| (*rng.pick(&["Ingress", "Egress", "egress", "Both"])).into()));
    }
    let some: [Option<&[&str]>; 9] = [
        None,
        None,
        Some(&[]),
        Some(&["Ingress"]),
        Some(&["Ingress"]),
        Some(&["Egress"]),
        Some(&["Ingress", "Egress"]),
        Some(&["Ingress", "Egress"]),
        Some(&["Ingress", "Ingress"]),
    ];
    rng.pick(&some).map(|types| types.iter().map(|&name| name.into()).collect())
}

/// A selector, empty in so many of a hundred cases.
fn selector(rng: &mut Rng, empty: usize) -> LabelSelector {
    if rng.percent(empty) {
        return LabelSelector {
            match_labels: rng.percent(20).then(Default::default),
            match_expressions: None,
        };
    }
    let match_labels = rng.percent(50).then(|| {
        let labels = rng.between(1, 2);
        rng.many(labels, |rng| {
            let (key, values) = *rng.pick(&LABELS);
            let value = if rng.percent(INVALID) { "not a value!" } else { rng.pick(values) };
            (key.to_string(), value.to_string())
        })
        .into_iter()
        .collect()
    });
    let expressions = rng.field(20, 2, requirement);
    LabelSelector { match_labels, match_expressions: expressions }
}

fn requirement(rng: &mut Rng) -> LabelSelectorRequirement {
    let (key, values) = *rng.pick(&LABELS);
    let operator = *rng.pick(&["In", "In", "NotIn", "NotIn", "Exists", "DoesNotExist"]);
    let takes_values = operator.ends_with("In");
    let mut requirement = LabelSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: if takes_values {
            let count = rng.between(1, 2);
            Some(rng.many(count, |rng| (*rng.pick(values)).into()))
        } else {
            rng.percent(30).then(Vec::new)
        },
    };
    if rng.percent(INVALID) {
        match rng.below(4) {
            0 => requirement.operator = (*rng.pick(&["in", "Equals", ""])).into(),
            1 => requirement.values = if takes_values { None } else { Some(vec!["a".into()]) },
            2 => requirement.key = (*rng.pick(&["", "not a key!", "UPPER/app"])).into(),
            _ if takes_values => requirement.values = Some(vec!["not a value!".into()]),
            _ => requirement.values = Some(vec![String::new()]),
        }
    }
    requirement
}

fn namespace_selector(rng: &mut Rng) -> LabelSelector {
    let mut selector = selector(rng, 30);
    if rng.percent(25) {
        let operator = *rng.pick(&["In", "NotIn"]);
        selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
            key: "kubernetes.io/metadata.name".into(),
            operator: operator.into(),
            values: Some(rng.many(2, |rng| (*rng.pick(&NAMESPACES)).into())),
        });
    }
    selector
}

fn peer(universe: &Universe, rng: &mut Rng) -> NetworkPolicyPeer {
    let kind = rng.below(100);
    NetworkPolicyPeer {
        ip_block: (!(40..98).contains(&kind)).then(|| block(universe, rng)),
        pod_selector: (40..78)
            .contains(&kind)
            .then(|| selector(rng, 25))
            .or_else(|| (kind == 98).then(Default::default)),
        namespace_selector: (58..96)
            .contains(&kind)
            .then(|| namespace_selector(rng))
            .or_else(|| (kind == 99).then(Default::default)),
    }
}

/// A block around an address that flows have, and up to three holes in it that may meet each other.
fn block(universe: &Universe, rng: &mut Rng) -> IPBlock {
    let cidr = around(universe, rng);
    let except = rng.field(30, 3, |rng| {
        if rng.percent(INVALID) {
            return (*rng.pick(&["10.2.0.300/32", "10.2.0.1", "", "fd99::/129"])).into();
        }
        // Most holes lie inside: of a few tries, the first that does.
        let tries = rng.many(8, |rng| around(universe, rng));
        let inside = tries.iter().find(|hole| cidr.contains(*hole) && **hole != cidr);
        spelled(*inside.unwrap_or(&tries[0]), rng)
    });
    let cidr = if rng.percent(INVALID) {
        (*rng.pick(&["10.2.0.1", "any", "10.2.0.0/33", "", "10.2.0/24"])).into()
    } else {
        spelled(cidr, rng)
    };
    IPBlock { cidr, except }
}

fn around(universe: &Universe, rng: &mut Rng) -> IpNet {
    let place = *rng.pick(&[Place::Here, Place::There]);
    let addresses = match rng.below(10) {
        0..5 => universe.pod_addresses(place, u8::try_from(rng.below(20)).expect("below 20")),
        5 => universe.node_addresses(place),
        _ => {
            let host = u8::try_from(rng.below(256)).expect("below 256");
            let ipv6 = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, host.into());
            vec![IpAddr::from([192, 0, 2, host]), ipv6.into()]
        }
    };
    let address = *rng.pick(&addresses);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = *rng.pick(&[bits, bits, bits - 1, bits - 2, bits - 4, bits - 6, bits - 8, 14, 8, 0]);
    IpNet::new(address, length).expect("a length of the family").trunc()
}

/// As it is written today, or in one of the ways that were accepted before.
fn spelled(net: IpNet, rng: &mut Rng) -> String {
    let plain = net.to_string();
    if !rng.percent(2 * INVALID) {
        return plain;
    }
    let (address, length) = (net.broadcast(), net.prefix_len());
    match (address, rng.below(3)) {
        (IpAddr::V4(address), 0) => {
            let [a, b, c, d] = address.octets();
            format!("{a:03}.{b:03}.{c:03}.{d:03}/{length}")
        }
        (IpAddr::V4(address), 1) => format!("::ffff:{address}/{}", length + 96),
        _ => format!("{address}/{length}"),
    }
}

fn port(rng: &mut Rng) -> NetworkPolicyPort {
    if rng.percent(2 * INVALID) {
        return bad_port(rng);
    }
    let protocol = rng.percent(55).then(|| (*rng.pick(&PROTOCOLS)).into());
    let number = *rng.pick(&PORTS);
    let (port, end_port) = match rng.below(100) {
        0..15 => (None, None),
        15..45 => (Some(IntOrString::String((*rng.pick(&PORT_NAMES)).into())), None),
        45..75 => (Some(IntOrString::Int(number.into())), None),
        _ => {
            let ends: Vec<_> = PORTS.into_iter().filter(|end| *end >= number).collect();
            (Some(IntOrString::Int(number.into())), Some((*rng.pick(&ends)).into()))
        }
    };
    NetworkPolicyPort { protocol, port, end_port }
}

fn bad_port(rng: &mut Rng) -> NetworkPolicyPort {
    let number = |number| Some(IntOrString::Int(number));
    let name = |name: &str| Some(IntOrString::String(name.into()));
    let (protocol, port, end_port) = match rng.below(8) {
        0 => (Some("ICMP"), None, None),
        1 => (Some("tcp"), number(80), None),
        2 => (None, number(0), None),
        3 => (Some("UDP"), number(65536), None),
        4 => (None, number(81), Some(80)),
        5 => (None, name("web"), Some(8081)),
        6 => (None, None, Some(8080)),
        _ => (None, name(""), None),
    };
    NetworkPolicyPort { protocol: protocol.map(Into::into), port, end_port }
}
