//! Objects of an API server that is newer than we are: they have fields that nobody here knows.

use cellwall_oracle::Objects;
use serde_json::{Value, json};

use super::rng::Rng;

/// In the order in which they are served.
const KINDS: [&str; 6] = ["namespaces", "nodes", "pods", "policies", "services", "slices"];
/// Of a hundred places that can have an unknown field, so many have one.
const UNKNOWN: usize = 8;

/// The cluster with unknown fields in some of its objects: as what it has to be understood, and as it is served.
///
/// A peer, a block, a port or a rule that says more than we understand may mean less than it seems to: it matches
/// nothing. A selector that does is not valid (S29). Unknown fields of pods, nodes, namespaces, Services and slices change nothing, nor do
/// those of a policy outside of its spec.
#[must_use]
pub fn newer(seed: u64, objects: &Objects) -> (Objects, Vec<Value>) {
    let mut rng = Rng::new(seed);
    let mut understood = objects.to_document();
    let mut served = understood.clone();
    for kind in KINDS {
        for object in items(&mut served, kind) {
            for part in ["metadata", "status"].into_iter().chain((kind != "policies").then_some("spec")) {
                if let Some(part) = object.get_mut(part).filter(|_| rng.percent(UNKNOWN)) {
                    add_unknown(part);
                }
            }
        }
    }
    let both = items(&mut understood, "policies").iter_mut().zip(items(&mut served, "policies"));
    for (understood, served) in both {
        if let (Some(understood), Some(served)) = (understood.get_mut("spec"), served.get_mut("spec")) {
            policy(understood, served, &mut rng);
        }
    }
    let values = KINDS.into_iter().flat_map(|kind| items(&mut served, kind).to_vec()).collect();
    let understood = Objects::from_document(understood).expect("it was made of objects");
    (understood, values)
}

fn policy(understood: &mut Value, served: &mut Value, rng: &mut Rng) {
    selector(understood, served, "podSelector", rng);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = items(understood, direction).iter_mut().zip(items(served, direction));
        for (understood, served) in rules {
            rule(understood, served, peers, rng);
        }
    }
}

fn rule(understood: &mut Value, served: &mut Value, peers: &str, rng: &mut Rng) {
    for (understood, served) in items(understood, peers).iter_mut().zip(items(served, peers)) {
        peer(understood, served, rng);
    }
    for (understood, served) in items(understood, "ports").iter_mut().zip(items(served, "ports")) {
        if rng.percent(UNKNOWN) {
            add_unknown(served);
            *understood = json!({"protocol": "unknown"});
        }
    }
    if rng.percent(UNKNOWN) {
        add_unknown(served);
        understood[peers] = json!([{}]);
    }
}

fn peer(understood: &mut Value, served: &mut Value, rng: &mut Rng) {
    selector(understood, served, "podSelector", rng);
    selector(understood, served, "namespaceSelector", rng);
    let block = served.get_mut("ipBlock").filter(|_| rng.percent(UNKNOWN));
    if let Some(block) = block {
        add_unknown(block);
        *understood = json!({});
    }
    if rng.percent(UNKNOWN) {
        add_unknown(served);
        *understood = json!({});
    }
}

/// In what is understood a requirement stands for the field, of a kind that there is none of.
fn selector(understood: &mut Value, served: &mut Value, field: &str, rng: &mut Rng) {
    let (Some(understood), Some(served)) = (understood.get_mut(field), served.get_mut(field)) else { return };
    if rng.percent(UNKNOWN) {
        add_unknown(served);
        let requirement = json!({"key": "unknown", "operator": "Unknown"});
        match understood.get_mut("matchExpressions").and_then(Value::as_array_mut) {
            Some(requirements) => requirements.push(requirement),
            None => understood["matchExpressions"] = json!([requirement]),
        }
    }
}

fn items<'a>(parent: &'a mut Value, field: &str) -> &'a mut [Value] {
    parent.get_mut(field).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

fn add_unknown(object: &mut Value) {
    object["fieldOfTomorrow"] = json!({"matchNames": ["anything"]});
}
