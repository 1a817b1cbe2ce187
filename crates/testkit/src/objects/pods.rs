//! Random pods: two or three that flows are about, and others of every kind an address can lead to.

use cellwall_oracle::api::{Container, ContainerPort, ObjectMeta, Pod, PodIP, PodSpec, PodStatus};

use super::{
    rng::Rng,
    universe::{self, NAMESPACES, PORT_NAMES, PORTS, PROTOCOLS, Place, Universe, time},
};

/// The most pods of a cluster.
const MOST: usize = 20;

pub(super) fn generate(universe: &Universe, rng: &mut Rng) -> Vec<Pod> {
    let local = rng.between(2, 3);
    let count = if rng.percent(4) { rng.between(12, MOST) } else { rng.between(4, 8) };
    let mut pods = Vec::new();
    for index in 0..count {
        let pod = if index < local {
            plain(universe, Place::Here, index, rng)
        } else {
            odd(universe, index, &pods, rng)
        };
        pods.push(pod);
    }
    // What is decided may not depend on the order of the list.
    rng.shuffle(&mut pods);
    pods
}

/// The first number that no pod's name has, if there is room for one more.
pub(super) fn unused(pods: &[Pod]) -> Option<usize> {
    (0..MOST).find(|index| pods.iter().all(|pod| pod.metadata.name.as_ref() != Some(&name(*index))))
}

fn name(index: usize) -> String {
    format!("pod{index}")
}

/// A running pod with its own addresses.
pub(super) fn plain(universe: &Universe, place: Place, index: usize, rng: &mut Rng) -> Pod {
    // From 11 to 14 are addresses of other kinds.
    let host = u8::try_from(if index < 10 { index + 1 } else { index + 5 }).expect("a few pods");
    let mut addresses: Vec<_> = universe.pod_addresses(place, host).iter().map(ToString::to_string).collect();
    if addresses.len() == 2 && rng.percent(15) {
        addresses.remove(rng.below(2));
    }
    // Unique, so that of two local pods with one address one is always the later.
    let created = 1_760_000_000 + i64::try_from(index).expect("a few pods");
    Pod {
        metadata: ObjectMeta {
            namespace: Some((*rng.pick(&NAMESPACES)).into()),
            name: Some(name(index)),
            uid: Some(format!("{index:08}-0000-4000-8000-000000000000")),
            labels: universe::labels(rng),
            creation_timestamp: Some(time(created)),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some(place.node_name().into()),
            containers: (0..rng.between(1, 2)).map(|n| container(n, rng)).collect(),
            init_containers: rng.percent(30).then(|| init_containers(rng)),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".into()),
            pod_ip: addresses.first().cloned(),
            pod_ips: (addresses.len() > 1 || rng.percent(80))
                .then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect()),
            ..PodStatus::default()
        }),
    }
}

/// A pod that may have ended, be on its way, share its node's network or have another pod's address.
pub(super) fn odd(universe: &Universe, index: usize, others: &[Pod], rng: &mut Rng) -> Pod {
    let place = *rng.pick(&[Place::Here, Place::There, Place::There]);
    let mut pod = plain(universe, place, index, rng);
    let here = place == Place::Here;
    let status = pod.status.as_mut().expect("made with a status");
    let spec = pod.spec.as_mut().expect("made with a spec");
    if rng.percent(25) {
        status.phase = rng
            .pick(&[None, Some("Pending"), Some("Succeeded"), Some("Failed"), Some("Unknown")])
            .map(Into::into);
    }
    if rng.percent(15) {
        pod.metadata.deletion_timestamp = Some(time(1_770_000_000));
    }
    // Two equal claims to one address are for pods elsewhere: here an interface would tell them apart.
    if !here && rng.percent(50) {
        let seconds = *rng.pick(&[None, Some(1_760_000_000), Some(1_760_000_001)]);
        pod.metadata.creation_timestamp = seconds.map(time);
    }
    match rng.below(100) {
        0..15 => {
            spec.host_network = Some(true);
            // An address in a pod range: some clouds give nodes and pods addresses of one range.
            let host = universe.pod_addresses(place, 11);
            let addresses = if rng.percent(80) { universe.node_addresses(place) } else { host };
            status.pod_ip = addresses.first().map(ToString::to_string);
            status.pod_ips = Some(addresses.iter().map(|a| PodIP { ip: a.to_string() }).collect());
        }
        15..40 if !others.is_empty() => {
            let other = rng.pick(others).status.clone().unwrap_or_default();
            (status.pod_ip, status.pod_ips) = (other.pod_ip, other.pod_ips);
        }
        40..48 => {
            status.phase = Some("Pending".into());
            (status.pod_ip, status.pod_ips) = (None, None);
        }
        48..52 => spec.host_network = Some(false),
        // Nothing that has an address, or something that is none.
        52 => pod.status = None,
        53 => status.pod_ip = Some((*rng.pick(&["", "none", "10.1.0.256"])).into()),
        _ => {}
    }
    pod
}

fn container(number: usize, rng: &mut Rng) -> Container {
    Container { name: format!("c{number}"), ports: rng.field(20, 3, container_port), ..Container::default() }
}

fn init_containers(rng: &mut Rng) -> Vec<Container> {
    (0..rng.between(1, 2))
        .map(|n| Container {
            restart_policy: rng
                .pick(&[None, Some("Always"), Some("Always"), Some("OnFailure")])
                .map(Into::into),
            ..container(n, rng)
        })
        .map(|c| Container { name: format!("i{}", &c.name[1..]), ..c })
        .collect()
}

fn container_port(rng: &mut Rng) -> ContainerPort {
    let name = rng.pick(&PORT_NAMES[..PORT_NAMES.len() - 1]);
    ContainerPort {
        container_port: (*rng.pick(&PORTS)).into(),
        name: rng.percent(90).then(|| (*name).into()),
        protocol: rng.percent(50).then(|| (*rng.pick(&PROTOCOLS)).into()),
        ..ContainerPort::default()
    }
}
