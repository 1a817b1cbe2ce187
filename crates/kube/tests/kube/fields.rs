//! Every field of NetworkPolicy is understood or named: the compiler notices a new one, walks notice the rest.

use crate::common::policy_of;
use cellwall_kube::k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use cellwall_policy::model::{Peer, Policy, Rule};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A policy in which every field is set.
fn full() -> Value {
    let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]});
    let peers = json!([
        {"podSelector": selector, "namespaceSelector": selector},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]);
    let ports = json!([{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "dns", "protocol": "UDP"}]);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {
            "podSelector": selector,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": ports}],
            "egress": [{"to": peers, "ports": ports}],
        },
    })
}

/// A release of the API with another field does not compile here until `full` has it and the conversion reads it.
#[test]
fn the_full_policy_has_every_field_of_the_api() {
    let spec: NetworkPolicySpec = serde_json::from_value(full()["spec"].clone()).expect("it is valid");
    let NetworkPolicySpec { egress, ingress, pod_selector, policy_types } = spec;
    let NetworkPolicyIngressRule { from, ports } = ingress.expect("set").remove(0);
    let NetworkPolicyEgressRule { to, ports: egress_ports } = egress.expect("set").remove(0);
    let LabelSelector { match_expressions, match_labels } = pod_selector.expect("set");
    let LabelSelectorRequirement { key, operator, values } = match_expressions.expect("set").remove(0);
    let NetworkPolicyPort { end_port, port, protocol } = ports.expect("set").remove(0);
    let mut from = from.expect("set");
    let NetworkPolicyPeer { ip_block, namespace_selector: _, pod_selector: _ } = from.remove(1);
    let IPBlock { cidr, except } = ip_block.expect("set");
    let NetworkPolicyPeer { ip_block: _, namespace_selector, pod_selector } = from.remove(0);
    assert!(policy_types.is_some() && to.is_some() && egress_ports.is_some() && match_labels.is_some());
    assert!(!key.is_empty() && !operator.is_empty() && values.is_some());
    assert!(end_port.is_some() && port.is_some() && protocol.is_some());
    assert!(!cidr.is_empty() && except.is_some() && namespace_selector.is_some() && pod_selector.is_some());
    assert_eq!(policy_of(full()).expect("it is valid").1, []);
}

/// JSON pointers of every value below `at`, `at` itself first.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, v)| pointers(v, &format!("{at}/{name}"), out));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out));
        }
        _ => {}
    }
}

/// `/spec` itself comes first.
fn spec_pointers() -> Vec<String> {
    let mut out = Vec::new();
    pointers(&full()["spec"], "/spec", &mut out);
    out
}

/// A policy whose spec says nothing isolates Ingress only, as in the API: the walks that break things stay below.
fn field_pointers() -> Vec<String> {
    spec_pointers().split_off(1)
}

/// True for maps whose keys are the user's own.
fn is_labels(pointer: &str) -> bool {
    pointer.ends_with("/matchLabels")
}

/// How much a policy can let through, as far as its structure tells: for each direction, isolation, and per rule the
/// peers and ports that match something.
fn is_no_wider(changed: &Policy, original: &Policy) -> bool {
    (0..2).all(|d| {
        changed.isolates[d]
            && changed.rules[d].iter().all(|rule| {
                let before = original.rules[d].get(rule.index as usize);
                matches_nothing(rule) || before.is_some_and(|before| names_no_more(rule, before))
            })
    })
}

fn matches_nothing(rule: &Rule) -> bool {
    rule.peers.as_ref().is_some_and(|peers| peers.iter().all(|peer| *peer == Peer::Unknown))
        || rule.ports.as_ref().is_some_and(Vec::is_empty)
}

/// The original names peers and ports everywhere: no list may become "any".
fn names_no_more(rule: &Rule, before: &Rule) -> bool {
    let (Some(peers), Some(ports)) = (&rule.peers, &rule.ports) else { return false };
    let (Some(peers_before), Some(ports_before)) = (&before.peers, &before.ports) else { return false };
    peers.iter().all(|peer| *peer == Peer::Unknown || peers_before.contains(peer))
        && ports.iter().all(|port| ports_before.contains(port))
}

/// A field nobody knows, put into each object of the policy in turn, is named, and widens nothing.
#[test]
fn an_unknown_field_is_named_wherever_it_stands() {
    let (original, _) = policy_of(full()).expect("it is valid");
    let mut seen = 0;
    for pointer in spec_pointers() {
        let mut value = full();
        let Some(Value::Object(object)) = value.pointer_mut(&pointer) else { continue };
        if is_labels(&pointer) {
            continue;
        }
        object.insert("surprise".to_owned(), json!("x"));
        let (policy, problems) = policy_of(value).expect("the frame can be read");
        assert!(problems.iter().any(|p| p.field.ends_with("surprise")), "{pointer}: {problems:?}");
        assert!(is_no_wider(&policy, &original), "{pointer}");
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

/// What decides nothing costs nothing: labels and annotations of the policy itself.
#[test]
fn metadata_that_cannot_be_read_leaves_the_policy_as_it_is() {
    let (original, _) = policy_of(full()).expect("it is valid");
    for metadata in [json!({"labels": {"n": 7}}), json!({"annotations": []}), json!({"generation": "x"})] {
        let mut value = full();
        let own = value["metadata"].as_object_mut().expect("it is one");
        own.extend(metadata.as_object().expect("so is this").clone());
        let (policy, problems) = policy_of(value).expect("a policy with a name is one");
        assert_eq!(policy, original, "{metadata}");
        assert!(problems.iter().any(|p| p.field == "metadata"), "{problems:?}");
    }
}

/// Each field's name mistyped in turn.
#[test]
fn a_mistyped_field_is_named_and_never_widens() {
    let (original, _) = policy_of(full()).expect("it is valid");
    for pointer in field_pointers() {
        let (parent, name) = pointer.rsplit_once('/').expect("it has a parent");
        let mut value = full();
        let Some(Value::Object(object)) = value.pointer_mut(parent) else { continue };
        if is_labels(parent) {
            continue;
        }
        let moved = object.remove(name).expect("it is there");
        object.insert(format!("{name}x"), moved);
        let (policy, problems) = policy_of(value).expect("the frame can be read");
        assert!(!problems.is_empty(), "{pointer}");
        // Without `policyTypes` the defaults isolate the same; with a list of rules gone, there is less to allow.
        assert!(is_no_wider(&policy, &original), "{pointer}: {policy:?}");
    }
}

/// A value of a wrong type in place of each value in turn.
#[test]
fn a_wrong_type_is_named_and_never_widens() {
    let (original, _) = policy_of(full()).expect("it is valid");
    for pointer in spec_pointers() {
        for wrong in [json!(false), json!(7.5), json!([false]), json!({"zz": 1})] {
            let mut value = full();
            *value.pointer_mut(&pointer).expect("it is one of its own") = wrong;
            let (policy, problems) = policy_of(value).expect("a policy with a name is one");
            assert!(!problems.is_empty(), "{pointer}");
            assert!(is_no_wider(&policy, &original), "{pointer}: {policy:?}");
        }
    }
}

/// JSON that is nowhere a valid value of a field: a wrong type, or an object of fields that nobody knows.
fn garbage() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![any::<bool>().prop_map(Value::from), (-9.5e9..9.5e9).prop_map(Value::from)];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
            proptest::collection::btree_map("zz[a-z]{0,3}", inner, 1..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Any JSON at all, with names that mean something in it.
fn anything() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("apiVersion".to_owned()),
        Just("kind".to_owned()),
        Just("metadata".to_owned()),
        Just("name".to_owned()),
        Just("spec".to_owned()),
        Just("status".to_owned()),
        Just("podSelector".to_owned()),
        Just("ingress".to_owned()),
        Just("from".to_owned()),
        Just("ports".to_owned()),
        Just("containers".to_owned()),
        Just("clusterIPs".to_owned()),
        Just("externalIPs".to_owned()),
        Just("loadBalancer".to_owned()),
        Just("endpoints".to_owned()),
        Just("addresses".to_owned()),
        Just("podIPs".to_owned()),
        Just("matchExpressions".to_owned()),
        Just("ipBlock".to_owned()),
        Just("cidr".to_owned()),
        ".{0,4}",
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9a-f:./]{0,20}".prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Garbage in place of any one value of the policy leaves it as it was, or narrower.
    #[test]
    fn garbage_never_widens(pointer in proptest::sample::select(spec_pointers()), garbage in garbage()) {
        let (original, _) = policy_of(full()).expect("it is valid");
        let mut value = full();
        *value.pointer_mut(&pointer).expect("it is one of its own") = garbage;
        let (policy, problems) = policy_of(value).expect("a policy with a name is one");
        prop_assert!(!problems.is_empty());
        prop_assert!(is_no_wider(&policy, &original), "{:?}", policy);
    }

    /// No JSON panics, whatever kind it claims to be.
    #[test]
    fn nothing_panics(kind in 0..cellwall_policy::model::Kind::ALL.len(), meta in anything(), spec in anything(), status in anything()) {
        let kind = cellwall_policy::model::Kind::ALL[kind];
        for meta in [meta, json!({"name": "x"})] {
            let value = json!({"metadata": meta, "spec": spec, "status": status});
            let _ = cellwall_kube::convert::decode_as(kind, value);
        }
    }
}
