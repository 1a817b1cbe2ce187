//! One small change of a cluster, of the kind that a watch brings.

use std::collections::BTreeMap;

use cellwall_oracle::{
    Objects,
    api::{NetworkPolicySpec, Pod, PodIP, PodStatus},
};

use super::{
    changes, pods, policies,
    rng::Rng,
    services,
    universe::{self, LABELS, NAMESPACES, Place, Universe, time},
};

/// The cluster after one change of one object, or of two between which an address moves. The same seed and cluster
/// give the same change. The order of the lists changes only where an object comes or goes.
#[must_use]
pub fn mutate(seed: u64, objects: &Objects) -> Objects {
    let mut rng = Rng::new(seed);
    let universe = Universe::of(objects);
    // A change may write what is there already, or find nothing to change; a new policy never does.
    for _ in 0..32 {
        let mut after = objects.clone();
        change(&universe, &mut after, &mut rng);
        if !changes(objects, &after).is_empty() {
            return after;
        }
    }
    let mut after = objects.clone();
    add_policy(&universe, &mut after, &mut rng);
    after
}

fn change(universe: &Universe, objects: &mut Objects, rng: &mut Rng) {
    match rng.below(100) {
        0..14 => relabel_pod(objects, rng),
        14..22 => relabel_namespace(objects, rng),
        22..30 => {
            if let Some(pod) = any(&mut objects.pods, rng) {
                live(universe, pod, rng);
            }
        }
        30..38 => move_address(objects, rng),
        38..44 => remove(&mut objects.pods, rng),
        44..52 => change_service(universe, objects, rng),
        52..60 => {
            if let Some(index) = pods::unused(&objects.pods) {
                let pod = pods::odd(universe, index, &objects.pods, rng);
                insert(&mut objects.pods, pod, rng);
            }
        }
        60..64 => replace_pod(universe, objects, rng),
        64..70 => change_surroundings(universe, objects, rng),
        70..78 => add_policy(universe, objects, rng),
        78..84 => remove(&mut objects.policies, rng),
        _ => {
            if let Some(policy) = any(&mut objects.policies, rng) {
                edit(universe, policy.spec.get_or_insert_default(), rng);
            }
        }
    }
}

fn any<'a, T>(list: &'a mut [T], rng: &mut Rng) -> Option<&'a mut T> {
    if list.is_empty() { None } else { list.get_mut(rng.below(list.len())) }
}

fn remove<T>(list: &mut Vec<T>, rng: &mut Rng) {
    if !list.is_empty() {
        list.remove(rng.below(list.len()));
    }
}

fn insert<T>(list: &mut Vec<T>, item: T, rng: &mut Rng) {
    list.insert(rng.below(list.len() + 1), item);
}

fn relabel_pod(objects: &mut Objects, rng: &mut Rng) {
    if let Some(pod) = any(&mut objects.pods, rng) {
        relabel(&mut pod.metadata.labels, rng);
    }
}

fn relabel_namespace(objects: &mut Objects, rng: &mut Rng) {
    if let Some(namespace) = any(&mut objects.namespaces, rng) {
        relabel(&mut namespace.metadata.labels, rng);
    }
}

/// One label comes, goes or has another value.
fn relabel(labels: &mut Option<BTreeMap<String, String>>, rng: &mut Rng) {
    let (key, values) = *rng.pick(&LABELS);
    let labels = labels.get_or_insert_default();
    if rng.percent(30) {
        labels.remove(key);
    } else {
        labels.insert(key.into(), (*rng.pick(values)).into());
    }
}

/// The next step in the life of a pod, or one that it takes only in bad times.
fn live(universe: &Universe, pod: &mut Pod, rng: &mut Rng) {
    let here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(Place::Here.node_name());
    let place = if here { Place::Here } else { Place::There };
    let status = pod.status.get_or_insert_default();
    match rng.below(10) {
        0..4 => status.phase = Some((*rng.pick(&["Succeeded", "Failed"])).into()),
        4..6 => status.phase = Some("Running".into()),
        6 => status.phase = rng.pick(&[None, Some("Pending"), Some("Unknown")]).map(Into::into),
        7 => pod.metadata.deletion_timestamp = Some(time(1_770_000_000)),
        8 => (status.pod_ip, status.pod_ips) = (None, None),
        // A new sandbox, or the first.
        _ => {
            let host = u8::try_from(rng.between(1, 10)).expect("a few hosts");
            let addresses = universe.pod_addresses(place, host);
            status.pod_ip = addresses.first().map(ToString::to_string);
            status.pod_ips = Some(addresses.iter().map(|a| PodIP { ip: a.to_string() }).collect());
        }
    }
}

/// One pod gets the address of another, which may have ended, may have gone, or may know nothing of it yet.
fn move_address(objects: &mut Objects, rng: &mut Rng) {
    if objects.pods.len() < 2 {
        return;
    }
    let from = rng.below(objects.pods.len());
    let to = (from + rng.between(1, objects.pods.len() - 1)) % objects.pods.len();
    let PodStatus { pod_ip, pod_ips, .. } = objects.pods[from].status.clone().unwrap_or_default();
    let new = objects.pods[to].status.get_or_insert_default();
    (new.pod_ip, new.pod_ips) = (pod_ip, pod_ips);
    match rng.below(4) {
        0 => objects.pods[from].status.get_or_insert_default().phase = Some("Succeeded".into()),
        1 => {
            let old = objects.pods[from].status.get_or_insert_default();
            (old.pod_ip, old.pod_ips) = (None, None);
        }
        2 => {
            objects.pods.remove(from);
        }
        _ => {}
    }
}

/// Another pod under the name of one that is gone, as a StatefulSet makes it.
fn replace_pod(universe: &Universe, objects: &mut Objects, rng: &mut Rng) {
    let newest =
        objects.pods.iter().filter_map(|pod| pod.metadata.creation_timestamp.as_ref()).map(|t| t.0).max();
    let second = newest.map_or(1_760_000_100, |time| time.as_second() + 1);
    let Some(pod) = any(&mut objects.pods, rng) else { return };
    let place = *rng.pick(&[Place::Here, Place::There]);
    // With the addresses of one of the first pods, which may be there or not.
    let mut new = pods::plain(universe, place, rng.below(8), rng);
    new.metadata.namespace.clone_from(&pod.metadata.namespace);
    new.metadata.name.clone_from(&pod.metadata.name);
    new.metadata.uid = Some(format!("{second:08x}-0000-4000-8000-000000000000"));
    new.metadata.creation_timestamp = Some(time(second));
    *pod = new;
}

/// Namespaces and nodes.
fn change_surroundings(universe: &Universe, objects: &mut Objects, rng: &mut Rng) {
    match rng.below(4) {
        0 => remove(&mut objects.namespaces, rng),
        1 => {
            // One that is missing, if there is one.
            let known: Vec<_> = objects.namespaces.iter().filter_map(|n| n.metadata.name.clone()).collect();
            let missing = NAMESPACES.into_iter().find(|name| !known.iter().any(|known| known == name));
            let name = missing.unwrap_or(*rng.pick(&NAMESPACES));
            objects.namespaces.retain(|namespace| namespace.metadata.name.as_deref() != Some(name));
            insert(&mut objects.namespaces, universe::namespace(name, rng), rng);
        }
        2 => remove(&mut objects.nodes, rng),
        _ => {
            let place = *rng.pick(&[Place::Here, Place::There]);
            objects.nodes.retain(|node| node.metadata.name.as_deref() != Some(place.node_name()));
            insert(&mut objects.nodes, universe.node(place, rng), rng);
        }
    }
}

/// A Service, or a slice behind one: it comes, goes or is another.
fn change_service(universe: &Universe, objects: &mut Objects, rng: &mut Rng) {
    match rng.below(8) {
        0 => remove(&mut objects.services, rng),
        1 => remove(&mut objects.slices, rng),
        2 | 3 => {
            if let Some(index) = services::unused(&objects.services) {
                let service = services::service(universe, objects, index, rng);
                insert(&mut objects.services, service, rng);
            }
        }
        _ if objects.services.is_empty() => {}
        _ => {
            let service = rng.pick(&objects.services).clone();
            let new = services::slice(universe, objects, &service, rng.below(3), rng);
            objects.slices.retain(|old| {
                (&old.metadata.namespace, &old.metadata.name) != (&new.metadata.namespace, &new.metadata.name)
            });
            insert(&mut objects.slices, new, rng);
        }
    }
}

fn add_policy(universe: &Universe, objects: &mut Objects, rng: &mut Rng) {
    let policy = policies::policy(universe, objects, policies::unused(&objects.policies), rng);
    insert(&mut objects.policies, policy, rng);
}

/// One field of a policy.
fn edit(universe: &Universe, spec: &mut NetworkPolicySpec, rng: &mut Rng) {
    match rng.below(6) {
        0 => spec.pod_selector = policies::subject(rng),
        1 => spec.policy_types = policies::policy_types(rng),
        2 | 3 => edit_list(&mut spec.ingress, rng, |rng| policies::ingress_rule(universe, rng)),
        _ => edit_list(&mut spec.egress, rng, |rng| policies::egress_rule(universe, rng)),
    }
}

fn edit_list<T>(list: &mut Option<Vec<T>>, rng: &mut Rng, make: impl Fn(&mut Rng) -> T) {
    match rng.below(8) {
        0 => *list = None,
        1 => *list = Some(Vec::new()),
        2 | 3 => remove(list.get_or_insert_default(), rng),
        4 | 5 => {
            let item = make(rng);
            insert(list.get_or_insert_default(), item, rng);
        }
        _ => {
            let item = make(rng);
            if let Some(old) = any(list.get_or_insert_default(), rng) {
                *old = item;
            }
        }
    }
}
