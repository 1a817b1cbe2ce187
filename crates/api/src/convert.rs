//! From the words of the model to those of the contract. Total: every value has its counterpart.

use std::net::IpAddr;

use cellwall_abi::{Direction, Reason};
use cellwall_policy::compile::{EndpointReport, PolicyReport, Unplaced, UnplacedReason};
use cellwall_policy::model::{ObjectKey, Problem};

use crate::v1alpha1;

/// Names an object.
pub fn object(key: &ObjectKey) -> v1alpha1::ObjectReference {
    let ObjectKey { kind, namespace, name } = key;
    v1alpha1::ObjectReference {
        kind: kind.name().to_owned(),
        namespace: namespace.clone(),
        name: name.clone(),
    }
}

/// What is wrong with an object.
pub fn problem(problem: &Problem) -> v1alpha1::Problem {
    let Problem { object: key, field, message } = problem;
    v1alpha1::Problem { object: Some(object(key)), field: field.clone(), message: message.clone() }
}

/// An enforced pod; `attached` tells whether the programs are on its interface, `live` whether it is in the live
/// revision as it is here.
pub fn endpoint(report: &EndpointReport, attached: bool, live: bool) -> v1alpha1::Endpoint {
    let EndpointReport { pod, uid, labels, ifindex, interface, addresses, audit, isolated, policies } =
        report;
    let direction = |direction: Direction| {
        let at = direction as usize;
        Some(v1alpha1::EndpointDirection {
            isolated: isolated[at],
            policies: policies[at].iter().map(object).collect(),
        })
    };
    v1alpha1::Endpoint {
        pod: pod.as_ref().map(object),
        ifindex: *ifindex,
        interface: interface.clone(),
        addresses: addresses.iter().map(IpAddr::to_string).collect(),
        audit: *audit,
        ingress: direction(Direction::Ingress),
        egress: direction(Direction::Egress),
        attached,
        labels: labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        pod_uid: uid.clone(),
        live,
        unconfirmed: String::new(),
    }
}

/// A policy with what is wrong with it.
pub fn policy(key: &ObjectKey, report: &PolicyReport, problems: &[Problem]) -> v1alpha1::Policy {
    let PolicyReport { selects, rules, generation } = report;
    v1alpha1::Policy {
        policy: Some(object(key)),
        generation: *generation,
        selects: selects.iter().map(object).collect(),
        ingress_rules: rules[Direction::Ingress as usize],
        egress_rules: rules[Direction::Egress as usize],
        problems: problems.iter().map(problem).collect(),
    }
}

/// A pod that is not enforced.
pub fn unplaced(unplaced: &Unplaced) -> v1alpha1::UnplacedPod {
    let Unplaced { pod, reason } = unplaced;
    let word = match reason {
        UnplacedReason::NoAddress => v1alpha1::UnplacedReason::NoAddress,
        UnplacedReason::HostNetwork => v1alpha1::UnplacedReason::HostNetwork,
        UnplacedReason::NoInterface => v1alpha1::UnplacedReason::NoInterface,
        UnplacedReason::AddressTaken => v1alpha1::UnplacedReason::AddressTaken,
    };
    v1alpha1::UnplacedPod { pod: Some(object(pod)), reason: word.into(), message: reason.to_string() }
}

/// What became of packets.
pub fn counter(reason: Reason, direction: Direction, count: cellwall_abi::Counter) -> v1alpha1::Counter {
    let word = match direction {
        Direction::Ingress => v1alpha1::Direction::Ingress,
        Direction::Egress => v1alpha1::Direction::Egress,
    };
    v1alpha1::Counter {
        reason: reason.name().to_owned(),
        direction: word.into(),
        drop: reason.is_drop(),
        packets: count.packets,
        bytes: count.bytes,
    }
}
