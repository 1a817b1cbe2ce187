//! The normal form with tiers, priorities, Accept, Deny and Pass: what is flattened decides as a walk over the rules
//! does, one by one. NetworkPolicy objects have a judge of their own; this one is for what they cannot say.

use std::net::IpAddr;

use cellwall_abi::Mac;
use cellwall_policy::compile::Compiler;
use cellwall_policy::flow::{Direction, Flow, Protocol};
use cellwall_policy::model::{
    Action, Block, Change, Cluster, Kind, Labels, Link, Namespace, NamespaceMatch, ObjectKey, Peer, Phase,
    Pod, Policy, PolicyKind, Port, PortRange, Requirement, Rule, Selector, Subject, Tier, Touched,
};
use cellwall_policy::plan::{Capacities, plan};
use cellwall_policy::wanted::Observed;
use cellwall_testkit::frame::{Frame, pod_mac};
use cellwall_testkit::memory::{Memory, after};
use cellwall_testkit::objects::Rng;
use cellwall_verdict::process;

const COLOURS: [&str; 3] = ["red", "green", "blue"];
const PORTS: [u16; 5] = [79, 80, 81, 443, 8080];
/// The pods, and an address of the pods' range that nobody has, and one of the world.
const ADDRESSES: [&str; 6] = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.99", "192.0.2.7"];
const IFINDEX: u32 = 9;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn colour(colour: &str) -> Labels {
    [("colour".to_owned(), colour.to_owned())].into()
}

fn pod(index: usize, rng: &mut Rng) -> Pod {
    Pod {
        namespace: "n".into(),
        name: format!("pod{index}"),
        uid: String::new(),
        labels: colour(rng.pick::<&str>(&COLOURS)),
        addresses: vec![address(ADDRESSES[index])],
        node: if index == 0 { "here".into() } else { "there".into() },
        host_network: false,
        phase: Phase::Running,
        deleting: false,
        created_s: 0,
        ports: Vec::new(),
        host_ports: Vec::new(),
        audit: false,
    }
}

fn peer(rng: &mut Rng) -> Peer {
    match rng.below(8) {
        0..4 => Peer::Pods(
            NamespaceMatch::Labels(Selector::everything()),
            Selector::new(vec![Requirement::In("colour".into(), [(*rng.pick(&COLOURS)).into()].into())]),
        ),
        4 => Peer::Pods(NamespaceMatch::Named("elsewhere".into()), Selector::everything()),
        5 => Peer::Unknown,
        6 => Peer::Block(Block {
            cidr: "10.1.0.0/30".parse().expect("a block"),
            except: vec!["10.1.0.2/32".parse().expect("a block")],
        }),
        _ => Peer::Block(Block { cidr: "0.0.0.0/0".parse().expect("a block"), except: Vec::new() }),
    }
}

fn port(rng: &mut Rng) -> Port {
    let protocol = *rng.pick(&[Protocol::TCP, Protocol::UDP]);
    let low = *rng.pick(&PORTS);
    Port::Range(protocol, PortRange { low, high: low + u16::try_from(rng.below(3)).expect("small") })
}

fn rule(index: u32, tier: Tier, rng: &mut Rng) -> Rule {
    let action = match tier {
        Tier::NetworkPolicy => Action::Accept,
        _ => *rng.pick(&[Action::Accept, Action::Deny, Action::Pass]),
    };
    let peers = rng.percent(80).then(|| (0..rng.below(3)).map(|_| peer(rng)).collect::<Vec<_>>());
    let ports = rng.percent(60).then(|| (0..rng.below(7)).map(|_| port(rng)).collect());
    Rule { peers, ports, action, index }
}

fn policy(number: usize, rng: &mut Rng) -> Policy {
    let tier = *rng.pick(&[Tier::Admin, Tier::NetworkPolicy, Tier::Baseline]);
    let (kind, namespace) = match tier {
        Tier::NetworkPolicy => (Kind::NetworkPolicy, "n"),
        _ => (Kind::ClusterNetworkPolicy, ""),
    };
    let mut rules =
        || (0..u32::try_from(rng.below(4)).expect("few")).map(|i| rule(i, tier, rng)).collect::<Vec<_>>();
    let rules = [rules(), rules()];
    Policy {
        key: ObjectKey::namespaced(kind, namespace, &format!("policy{number}")),
        kind: if tier == Tier::NetworkPolicy {
            PolicyKind::NetworkPolicy
        } else {
            PolicyKind::ClusterNetworkPolicy
        },
        uid: String::new(),
        generation: 1,
        tier,
        priority: if tier == Tier::NetworkPolicy { 0 } else { i32::try_from(rng.below(3)).expect("small") },
        subject: Subject {
            namespaces: NamespaceMatch::Labels(Selector::everything()),
            pods: Selector::everything(),
        },
        isolates: [0, 1].map(|_| tier == Tier::NetworkPolicy && rng.percent(70)),
        rules,
    }
}

fn cluster(rng: &mut Rng) -> Cluster {
    let mut cluster = Cluster::new("here");
    cluster.pod_cidrs = vec!["10.1.0.0/16".parse().expect("a range")];
    let mut changes = vec![Change::Namespace(Namespace {
        name: "n".into(),
        labels: Labels::new(),
        audit: false,
        deleting: false,
    })];
    changes.extend((0..4).map(|index| Change::Pod(pod(index, rng))));
    changes.extend((0..rng.between(1, 5)).map(|number| Change::Policy(policy(number, rng), Vec::new())));
    let addresses = vec![address(ADDRESSES[0])];
    let mac: Mac = pod_mac();
    changes.push(Change::Link(Link {
        ifindex: IFINDEX,
        name: "veth".into(),
        addresses,
        mac,
        preexisting: false,
    }));
    for change in changes {
        cluster.apply(change, &mut Touched::default());
    }
    cluster
}

/// What a rule does: one that leaves somebody it does not understand to others lets nobody through (C26).
fn outcome(rule: &Rule) -> Action {
    let is_understood = rule.peers.as_ref().is_none_or(|peers| !peers.contains(&Peer::Unknown));
    if is_understood || rule.action == Action::Accept { rule.action } else { Action::Deny }
}

/// Whether a rule is about an address. Nobody has `10.1.0.99`, so it may be any pod: every Deny is about it (S84).
fn is_about(rule: &Rule, cluster: &Cluster, remote: IpAddr) -> bool {
    let Some(peers) = &rule.peers else { return true };
    if outcome(rule) == Action::Deny && (peers.contains(&Peer::Unknown) || remote == address(ADDRESSES[4])) {
        return true;
    }
    if remote == address(ADDRESSES[4]) {
        return false;
    }
    let owner = cluster.pods.values().find(|pod| pod.addresses.contains(&remote));
    peers.iter().any(|peer| match peer {
        Peer::Pods(NamespaceMatch::Labels(_), pods) => owner.is_some_and(|pod| pods.matches(&pod.labels)),
        Peer::Block(block) => {
            block.cidr.contains(&remote) && !block.except.iter().any(|e| e.contains(&remote))
        }
        _ => false,
    })
}

fn matches(rule: &Rule, cluster: &Cluster, flow: &Flow) -> bool {
    let port = rule.ports.as_ref().is_none_or(|ports| {
        ports.iter().any(|port| {
            let Port::Range(protocol, range) = port else { return false };
            *protocol == flow.protocol && (range.low..=range.high).contains(&flow.port)
        })
    });
    port && is_about(rule, cluster, flow.remote)
}

/// One tier after the other, one policy after the other, one rule after the other.
fn walk(cluster: &Cluster, flow: &Flow) -> bool {
    let direction = flow.direction as usize;
    for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
        let mut policies: Vec<&Policy> =
            cluster.policies.values().filter(|policy| policy.tier == tier).collect();
        policies.sort_by(|a, b| (a.priority, &a.key).cmp(&(b.priority, &b.key)));
        let rules = policies.iter().flat_map(|policy| &policy.rules[direction]);
        let first = rules.into_iter().find(|rule| matches(rule, cluster, flow)).map(outcome);
        let isolated = policies.iter().any(|policy| policy.isolates[direction]);
        match (tier, first) {
            (Tier::NetworkPolicy, first) if isolated => return first == Some(Action::Accept),
            (Tier::NetworkPolicy, _) | (_, Some(Action::Pass) | None) => {}
            (_, Some(action)) => return action == Action::Accept,
        }
    }
    true
}

fn flows() -> impl Iterator<Item = Flow> {
    let remotes = ADDRESSES[1..].iter().map(|text| address(text));
    remotes.flat_map(|remote| {
        Direction::ALL.into_iter().flat_map(move |direction| {
            let ports = PORTS.iter().flat_map(|port| [*port, port + 1, port + 2]);
            let with_ports =
                ports.flat_map(|port| [(Protocol::TCP, port), (Protocol::UDP, port), (Protocol::SCTP, port)]);
            with_ports.chain([(Protocol::ICMP, 0), (Protocol(253), 0)]).map(move |(protocol, port)| Flow {
                local: address(ADDRESSES[0]),
                direction,
                remote,
                from_own_node: false,
                protocol,
                port,
            })
        })
    })
}

#[test]
fn flattened_rules_decide_as_a_walk_over_them_does() {
    let (mut asked, mut allowed) = (0_u64, 0_u64);
    for seed in 0..3000 {
        let cluster = cluster(&mut Rng::new(seed));
        let wanted = Compiler::new([1, 2]).compile(&cluster, &Touched::default()).wanted;
        let ops = plan(&wanted, &Observed::default(), &Capacities::default(), 1).expect("there is room");
        let mut memory = Memory::new(after(&Observed::default(), &ops));
        for flow in flows() {
            memory.forget();
            let verdict = process(&Frame::opening(&flow, IFINDEX), &memory, flow.direction);
            let right = walk(&cluster, &flow);
            assert_eq!(
                verdict.passes(),
                right,
                "seed {seed}: {flow:?} gets {verdict:?}\npods {:#?}\npolicies {:#?}",
                cluster.pods.values().map(|pod| (&pod.name, &pod.labels)).collect::<Vec<_>>(),
                cluster.policies.values().collect::<Vec<_>>()
            );
            asked += 1;
            allowed += u64::from(right);
        }
    }
    let share = 100 * allowed / asked;
    println!("{asked} flows, {share} % allowed, 0 differences");
    assert!((20..=80).contains(&share));
}
