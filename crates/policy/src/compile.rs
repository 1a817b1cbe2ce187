//! What the cluster means for the pods of this node.
//!
//! ```text
//! policies that select a pod here ─► its image per direction ─┐
//!                  │                                          ├─► (image, class) ─► intervals
//!         the peer sets they use ─► classes of addresses ─────┘
//! ```
//!
//! One pass over everything, with two memories: what pods are in by their labels, and what an image answers to a
//! class. The first is dropped where something was touched, the second is a pure function of its key. So compiling
//! what was touched and compiling from scratch are the same code and the same result.

mod blocks;
mod causes;
mod classes;
mod flatten;
mod intern;
mod left_out;
mod own_node;
mod place;
mod reach;
mod report;
mod rules;
mod services;
mod sets;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use cellwall_abi::{
    Addr6, Be32, CLASS_UNKNOWN_POD, CLASS_WORLD, ENDPOINT_AUDIT, ENDPOINT_IDENTIFIED, EndpointRecord,
    Interval, PolicyEntry, PolicyKey,
};

pub use causes::Causes;
pub(crate) use causes::Shares;
pub use left_out::LeftOut;
pub use report::{Compiled, EndpointReport, PolicyReport, Unplaced, UnplacedReason};

use crate::flow::Direction;
use crate::model::{Cluster, Link, ObjectKey, Pod, Policy, RuleRef, Touched};
use crate::prefix::Prefixes;
use crate::wanted::{Wanted, WantedEndpoint};
use blocks::Blocks;
use classes::{Classes, Memberships};
use flatten::{ClassContent, Flat, flatten, list_rows};
use intern::Interner;
use own_node::own_node;
use place::{Behind, Places, owners, places};
use rules::{Image, Lowering, port_names, selecting};
use services::{Services, services};
use sets::PeerSet;

/// Compiles, and remembers what it compiled so that the next time only what was touched is done again. Two
/// compilers with the same secret give the same result for the same cluster, whatever they compiled before (up to
/// ids that met by chance).
#[derive(Debug)]
pub struct Compiler {
    set_ids: Interner<PeerSet>,
    class_ids: Interner<Vec<u32>>,
    image_ids: Interner<Image>,
    list_ids: Interner<Vec<Interval>>,
    rule_ids: Interner<RuleRef>,
    /// The sets of the last pass: memberships hold for these.
    sets: Arc<BTreeMap<u32, PeerSet>>,
    memberships: Memberships,
    answers: BTreeMap<PolicyKey, Flat>,
}

impl Compiler {
    /// `secret` keys the hash behind every id in the tables; it is the one in [`cellwall_abi::Config`].
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        Self {
            set_ids: Interner::new(secret, 1),
            class_ids: Interner::new(secret, 2),
            image_ids: Interner::new(secret, 3),
            list_ids: Interner::new(secret, 4),
            rule_ids: Interner::new(secret, 5),
            sets: Arc::default(),
            memberships: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// The tables that `cluster` asks for. `touched` is what changed since the last call.
    pub fn compile(&mut self, cluster: &Cluster, touched: &Touched) -> Compiled {
        self.compile_without(cluster, touched, &LeftOut::new())
    }

    /// As [`Self::compile`], without the objects for which there is no room.
    pub fn compile_without(&mut self, cluster: &Cluster, touched: &Touched, left_out: &LeftOut) -> Compiled {
        let (owners, problems) = owners(cluster);
        let Places { links, unplaced, problems: of_places } = places(cluster);
        let names = port_names(cluster);
        let reduced = left_out::reduced(cluster, left_out);
        let unreachable = left_out::unreachable(cluster, left_out);
        let own_node = own_node(cluster).filter(|policy| !left_out.contains_key(&policy.key));
        let mut lowering = Lowering {
            names: &names,
            set_ids: &mut self.set_ids,
            rule_ids: &mut self.rule_ids,
            sets: BTreeMap::new(),
            rules: BTreeMap::new(),
            users: BTreeSet::new(),
            ranges: BTreeMap::new(),
        };
        let mut compiled =
            Compiled { unplaced, problems, policies: policy_reports(cluster), ..Compiled::default() };
        compiled.problems.extend(of_places);
        let mut images: BTreeMap<u32, Image> = BTreeMap::new();
        let mut placed: Vec<(&Link, Behind<'_>, [u32; 2])> = Vec::new();
        for (link, behind) in links {
            let selecting = if let Behind::Pod(pod) = behind { selecting(cluster, pod) } else { Vec::new() };
            let policies: Vec<&Policy> =
                selecting.into_iter().map(|policy| reduced.get(&policy.key).unwrap_or(policy)).collect();
            let ids = Direction::ALL.map(|direction| {
                let image = match behind {
                    Behind::Pod(pod) => {
                        let own_node = own_node.iter().filter(|_| own_node::applies(&policies, direction));
                        let first = unreachable.iter().filter(|_| left_out::applies(&policies, direction));
                        let asked: Vec<&Policy> =
                            first.chain(policies.iter().copied()).chain(own_node).collect();
                        lowering.image(&asked, pod, direction)
                    }
                    Behind::Left(isolated) if !isolated[direction as usize] => Image::default(),
                    Behind::Contested | Behind::Left(_) => Image::closed(),
                    Behind::Unknown => Image::default(),
                };
                if image.is_empty() {
                    return 0;
                }
                let id = if crate::planted("an-image-for-each-pod") {
                    link.ifindex
                } else {
                    self.image_ids.id(&image)
                };
                images.insert(id, image);
                id
            });
            report_endpoint(&mut compiled, cluster, link, behind, &policies, ids);
            placed.push((link, behind, ids));
        }
        let Lowering { sets, rules, users, ranges, .. } = lowering;
        self.forget_memberships(&sets, touched);

        let blocks = Blocks::new(&sets);
        let mut classes = Classes::new(&mut self.class_ids);
        let prefixes = classes.prefixes(cluster, &blocks);
        let finder = blocks.finder();
        let addresses = classes.addresses(cluster, &owners, &sets, &finder, &prefixes, &mut self.memberships);
        let contents = classes.contents;
        self.memberships.retain(|(pod, _), _| cluster.pods.contains_key(pod));

        let by_prefix = Prefixes::new(&prefixes);
        let Services { records, problems, claimants, at_source } = services(cluster, left_out, |address| {
            addresses.get(&address).or_else(|| by_prefix.address(address)).copied().unwrap_or(CLASS_WORLD)
        });
        compiled.problems.extend(problems);
        compiled.problems.extend(left_out::problems(left_out));
        let mut wanted = Wanted { services: records, addresses, prefixes, rules, ..Wanted::default() };
        self.answer(&mut wanted, &images, &contents);
        for (link, behind, ids) in placed {
            let endpoint = self.endpoint(cluster, link, behind, ids);
            wanted.endpoints.insert(link.ifindex, endpoint);
        }
        let allows = |key, protocol, port| self.allows(key, protocol, port);
        compiled.problems.extend(reach::problems(&at_source, &wanted, allows));
        self.sets = Arc::new(sets);
        let sets = Arc::clone(&self.sets);
        wanted.causes = Causes { sets, users, classes: contents, ranges, services: claimants };
        self.end_round(&wanted);
        compiled.wanted = wanted;
        compiled
    }

    /// Drops what is remembered of pods that changed, and everything when the questions are other ones.
    fn forget_memberships(&mut self, sets: &BTreeMap<u32, PeerSet>, touched: &Touched) {
        if *self.sets != *sets {
            self.memberships.clear();
            return;
        }
        if crate::planted("touched-is-not-forgotten") {
            return;
        }
        self.memberships.retain(|(pod, _), _| {
            !touched.pods.contains(pod) && !touched.namespaces.contains(&pod.namespace)
        });
    }

    /// What every image answers to every class: rows where it differs from the image's default, which is what it
    /// answers to the world.
    fn answer(
        &mut self,
        wanted: &mut Wanted,
        images: &BTreeMap<u32, Image>,
        contents: &BTreeMap<u32, Vec<u32>>,
    ) {
        for (image_id, image) in images {
            let default = self.flat(wanted, *image_id, image, CLASS_WORLD, ClassContent::Sets(&[]));
            for (class, sets) in contents {
                let entry = self.flat(wanted, *image_id, image, *class, ClassContent::Sets(sets));
                if entry != default {
                    wanted.policy.insert(PolicyKey { image: *image_id, class: *class }, entry);
                }
            }
            let unknown = self.flat(wanted, *image_id, image, CLASS_UNKNOWN_POD, ClassContent::UnknownPod);
            if unknown != default {
                wanted.policy.insert(PolicyKey { image: *image_id, class: CLASS_UNKNOWN_POD }, unknown);
            }
        }
    }

    /// One answer; its list, if it has one, goes to the table of ports.
    fn flat(
        &mut self,
        wanted: &mut Wanted,
        image_id: u32,
        image: &Image,
        class: u32,
        content: ClassContent<'_>,
    ) -> PolicyEntry {
        let key = PolicyKey { image: image_id, class };
        let flat = self.answers.entry(key).or_insert_with(|| flatten(image, content));
        let mut entry = flat.entry;
        if !flat.list.is_empty() {
            entry.list = self.list_ids.id(&flat.list);
            wanted.ports.extend(list_rows(entry.list, &flat.list));
        }
        entry
    }

    /// True when the policy of an image allows a port of addresses of a class.
    fn allows(&self, key: PolicyKey, protocol: u8, port: u16) -> bool {
        let flat = self.answers.get(&key).or_else(|| {
            let default = PolicyKey { class: CLASS_WORLD, ..key };
            self.answers.get(&default)
        });
        flat.is_none_or(|flat| flat.allows(protocol, port))
    }

    fn endpoint(
        &mut self,
        cluster: &Cluster,
        link: &Link,
        behind: Behind<'_>,
        ids: [u32; 2],
    ) -> WantedEndpoint {
        let mut record =
            EndpointRecord { image: ids, mac: link.mac, ifindex: link.ifindex, ..EndpointRecord::default() };
        for (default, id) in record.default.iter_mut().zip(ids) {
            *default = self.default_of(id);
        }
        let pod = match behind {
            Behind::Pod(pod) => Some(pod),
            Behind::Contested | Behind::Left(_) | Behind::Unknown => None,
        };
        if behind == Behind::Unknown {
            record = EndpointRecord::default();
        } else {
            let addresses = pod.map_or(&link.addresses[..], |pod| cluster.addresses_of(pod));
            set_addresses(&mut record, addresses);
            record.flags = ENDPOINT_IDENTIFIED | if cluster.is_audited(pod) { ENDPOINT_AUDIT } else { 0 };
        }
        WantedEndpoint {
            pod: pod.map(Pod::key),
            uid: pod.map(|pod| pod.uid.clone()).unwrap_or_default(),
            record,
            preexisting: link.preexisting,
        }
    }

    fn default_of(&mut self, image: u32) -> PolicyEntry {
        match self.answers.get(&PolicyKey { image, class: CLASS_WORLD }) {
            Some(flat) if image != 0 => {
                let list = if flat.list.is_empty() { 0 } else { self.list_ids.id(&flat.list) };
                PolicyEntry { list, ..flat.entry }
            }
            _ => PolicyEntry::default(),
        }
    }

    fn end_round(&mut self, wanted: &Wanted) {
        self.set_ids.end_round();
        self.class_ids.end_round();
        self.image_ids.end_round();
        self.list_ids.end_round();
        self.rule_ids.end_round();
        let images: BTreeSet<u32> = wanted.endpoints.values().flat_map(|e| e.record.image).collect();
        let mut classes: BTreeSet<u32> =
            wanted.addresses.values().chain(wanted.prefixes.values()).copied().collect();
        classes.extend([CLASS_WORLD, CLASS_UNKNOWN_POD]);
        self.answers.retain(|key, _| images.contains(&key.image) && classes.contains(&key.class));
    }
}

/// The first address of each family.
fn set_addresses(record: &mut EndpointRecord, addresses: &[IpAddr]) {
    for address in addresses {
        match address {
            IpAddr::V4(v4) if record.address4 == Be32::ZERO => record.address4 = (*v4).into(),
            IpAddr::V6(v6) if record.address6 == Addr6::ZERO => record.address6 = (*v6).into(),
            _ => {}
        }
    }
}

/// Every policy, before it is known what it selects here.
fn policy_reports(cluster: &Cluster) -> BTreeMap<ObjectKey, PolicyReport> {
    let report = |policy: &Policy| PolicyReport {
        selects: Vec::new(),
        rules: [0, 1].map(|d| u32::try_from(policy.rules[d].len()).unwrap_or(u32::MAX)),
        generation: policy.generation,
    };
    cluster.policies.iter().map(|(key, policy)| (key.clone(), report(policy))).collect()
}

fn report_endpoint(
    compiled: &mut Compiled,
    cluster: &Cluster,
    link: &Link,
    behind: Behind<'_>,
    policies: &[&Policy],
    ids: [u32; 2],
) {
    let pod = if let Behind::Pod(pod) = behind { Some(pod) } else { None };
    let applies = |policy: &Policy, direction: Direction| {
        policy.isolates[direction as usize] || !policy.rules[direction as usize].is_empty()
    };
    let policies_of = |direction| {
        policies.iter().filter(|policy| applies(policy, direction)).map(|policy| policy.key.clone()).collect()
    };
    for policy in policies {
        if let (Some(report), Some(pod)) = (compiled.policies.get_mut(&policy.key), pod) {
            report.selects.push(pod.key());
        }
    }
    let report = EndpointReport {
        pod: pod.map(Pod::key),
        labels: pod.map(|pod| pod.labels.clone()).unwrap_or_default(),
        uid: pod.map(|pod| pod.uid.clone()).unwrap_or_default(),
        ifindex: link.ifindex,
        interface: String::from(link.name.as_str()),
        addresses: pod.map_or(&link.addresses[..], |pod| cluster.addresses_of(pod)).to_vec(),
        audit: cluster.is_audited(pod),
        isolated: ids.map(|id| id != 0),
        policies: Direction::ALL.map(policies_of),
    };
    compiled.endpoints.insert(link.ifindex, report);
}
