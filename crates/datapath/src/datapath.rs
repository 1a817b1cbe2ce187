//! The data path as one thing: what is open, and what can be done with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use cellwall_abi::{ABI_VERSION, CONFIG_STRICT, Config, Counter, Direction, Event, Reason, planted};
use cellwall_policy::plan::Op;
use cellwall_policy::wanted::Observed;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info, warn};
use zerocopy::{FromBytes, IntoBytes};

use crate::count::{self, Usage};
use crate::error::{AttachError, ImportError, OpenError, RunError, TableError, TestRunError};
use crate::features::{self, Features};
use crate::grace::Grace;
use crate::helpers;
use crate::netlink::{self, Requests};
use crate::pins::Pins;
use crate::programs::{self, Hook, Programs};
use crate::settings::{Attach, Settings};
use crate::tables::{Tables, failed};
use crate::tcx::Links;
use crate::test_run::{self, At, Runner};
use crate::{capabilities, clock, clsact, conntrack, links, observe, remove, run, sweep};

/// Events that one call hands over: a flood of drops must not hold up the loop.
const EVENTS_AT_ONCE: usize = 1 << 14;

/// How the programs are on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// `tcx` or `clsact`.
    pub kind: &'static str,
    /// Nobody else's program is before ours, in either direction; on a pod's interface no XDP program either.
    pub first: bool,
}

/// What is done before the tables are read back, and so between the writes of somebody who may not have come to the end of
/// a plan and the next plan: programs that run since before a flip, or hold a row that is deleted, end. The next plan writes
/// the idle bank and uses rows again.
#[must_use]
pub fn before_reading() -> &'static [Op] {
    if planted("no-grace-before-reading") { &[] } else { &[Op::Grace] }
}

/// The open data path: tables, programs, links. Dropping it detaches nothing.
pub struct Datapath {
    settings: Settings,
    pins: Pins,
    programs: Programs,
    links: RefCell<Links>,
    /// Ids of all programs that are or were pinned, older ones and those of other ABI versions included.
    own: BTreeSet<u32>,
    tables: Tables,
    grace: Grace,
    features: Features,
    secret: [u64; 2],
    cpus: usize,
    /// Counted anew after a write.
    plan_usage: Option<Vec<Usage>>,
    /// Counted anew by a sweep.
    flow_usage: Option<Vec<Usage>>,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath").field("pins", &self.settings.root()).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Takes over what is pinned, and makes what is not. Programs of another version are replaced in their links,
    /// in place, where they use the same tables; where everything is as it should be, nothing is written. At no time
    /// is anything detached from an interface that is there.
    ///
    /// What another ABI version has pinned is left as it is: its tables are never read, and its programs enforce what they
    /// say until [`Datapath::attach`] puts ours in their place and [`Datapath::remove_others`] takes away the rest.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        capabilities::check()?;
        raise_file_limit();
        let pins = Pins::open(settings)?;
        helpers::check()?;
        let grace = Grace::new().map_err(OpenError::Grace)?;
        // Before others take their place in the pins.
        let before = programs::all_pinned(&pins)?;
        let programs = programs::open(settings, &pins)?;
        let shared = programs::tables_of(&programs)?;
        let heirs =
            before.iter().filter(|p| p.tables.iter().all(|id| shared.contains(id))).map(|p| p.id).collect();
        let ids = before.iter().map(|p| p.id).chain(programs.iter().map(|p| p.id));
        // Of a layout that is not known here, perhaps. Without them a program of another version counts as somebody else's.
        let of_others = remove::program_ids(&pins.others).unwrap_or_else(|error| {
            warn!("the programs of another version are not known: {error}");
            BTreeSet::new()
        });
        let own = ids.chain(of_others).collect();
        let tables = Tables::open(&pins.maps)?;
        let secret = settle(&tables, settings)?;
        let features = features::probe(&tables.endpoints.try_batch(), programs[0].fd().as_fd());
        let cpus = count::possible_cpus().map_err(failed("count the CPUs of", "COUNTERS"))?;
        let of_others = pins.others.iter().map(|other| other.join("links")).collect();
        let links = RefCell::new(Links::new(pins.links.clone(), of_others));
        let settings = settings.clone();
        let (plan_usage, flow_usage) = (None, None);
        let datapath = Self {
            settings,
            pins,
            programs,
            links,
            own,
            tables,
            grace,
            features,
            secret,
            cpus,
            plan_usage,
            flow_usage,
        };
        datapath.adopt(&heirs)?;
        if planted("another-version-goes-first") {
            remove::versions(&datapath.pins.others)?;
        }
        programs::remove_others(&datapath.pins)?;
        Ok(datapath)
    }

    /// True as long as there may be programs of another ABI version that enforce what its tables say.
    pub fn has_others(&self) -> bool {
        !self.pins.others.is_empty()
    }

    /// Takes away what other ABI versions have pinned, and their programs from the interfaces where ours are not in their
    /// place. To be called when all is attached that shall be; nothing there is fine.
    pub fn remove_others(&mut self) -> Result<(), OpenError> {
        if self.pins.others.is_empty() {
            return Ok(());
        }
        let removed = remove::versions(&self.pins.others)?;
        info!(pins = removed.pins, interfaces = removed.interfaces, "what another version had is gone");
        self.pins.others.clear();
        self.links.borrow_mut().forget_others();
        Ok(())
    }

    fn is_tcx(&self) -> bool {
        self.settings.attach == Attach::Auto && self.features.tcx
    }

    /// Programs that use other tables than ours go on until [`Datapath::attach`] replaces them, which comes after a
    /// plan: tables that are new hold nothing yet.
    fn adopt(&self, heirs: &BTreeSet<u32>) -> Result<(), AttachError> {
        self.links.borrow_mut().adopt(heirs, &self.programs)?;
        if self.is_tcx() { Ok(()) } else { clsact::adopt(heirs, &self.programs) }
    }

    /// Key of the hash behind the ids in the tables: random, made once, and kept with them.
    pub fn secret(&self) -> [u64; 2] {
        self.secret
    }

    /// What this kernel offers.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// How grace periods are waited for: `membarrier` or `map-in-map`.
    pub fn grace_name(&self) -> &'static str {
        self.grace.name()
    }

    /// Ids that the kernel gave the programs: those of a pod by [`Direction`], and that of all other interfaces. They
    /// change only with the programs.
    pub fn program_ids(&self) -> [u32; 3] {
        self.programs.each_ref().map(|program| program.id)
    }

    /// What the tables that plans write hold. Array elements that no row leads to are left out.
    ///
    /// Does [`before_reading`] first.
    pub fn observe(&self) -> Result<Observed, TableError> {
        if before_reading().contains(&Op::Grace) {
            self.grace.wait().map_err(failed("wait for a grace period before reading", "LIVE"))?;
        }
        observe::observe(&self.tables)
    }

    /// Performs the writes in order. An error leaves the rest undone and says how many were done.
    pub fn run_all(&mut self, ops: &[Op]) -> Result<(), RunError> {
        if !ops.is_empty() {
            self.plan_usage = None;
        }
        run::run_all(&self.tables, &self.grace, ops)
    }

    /// Puts both programs on the interface of a pod, in front of all others, or takes over those that are there.
    pub fn attach(&self, ifindex: u32) -> Result<(), AttachError> {
        self.attach_at(ifindex, Hook::POD)
    }

    /// Puts the program of the node's other interfaces on one of them, in front of all others.
    pub fn attach_node(&self, ifindex: u32) -> Result<(), AttachError> {
        self.attach_at(ifindex, Hook::NODE)
    }

    fn attach_at(&self, ifindex: u32, hooks: &[Hook]) -> Result<(), AttachError> {
        if self.is_tcx() {
            self.links.borrow_mut().attach(ifindex, hooks, &self.programs)
        } else {
            clsact::attach(ifindex, hooks, &self.own, &self.programs)
        }
    }

    /// Takes both programs of a pod off; fine when they, or the interface, are gone.
    pub fn detach(&self, ifindex: u32) -> Result<(), AttachError> {
        self.detach_at(ifindex, Hook::POD)
    }

    /// Takes off what [`Datapath::attach_node`] puts on; fine when it, or the interface, is gone.
    pub fn detach_node(&self, ifindex: u32) -> Result<(), AttachError> {
        self.detach_at(ifindex, Hook::NODE)
    }

    fn detach_at(&self, ifindex: u32, hooks: &[Hook]) -> Result<(), AttachError> {
        self.links.borrow_mut().detach(ifindex, hooks)?;
        if self.is_tcx() { Ok(()) } else { clsact::detach(ifindex, hooks, &self.own).map(drop) }
    }

    /// Interfaces with both programs of a pod. On the way, pins whose interface is gone are removed, and pins that are
    /// gone are made again.
    pub fn attached(&self) -> Result<BTreeMap<u32, Attached>, AttachError> {
        let mut all = self.attached_at(Hook::POD)?;
        // A kernel that does not list them tells of none; the programs are where they are all the same.
        let with_xdp = links::with_xdp().unwrap_or_else(|error| {
            debug!("cannot list interfaces with XDP programs: {error}");
            BTreeSet::new()
        });
        for ifindex in with_xdp {
            if let Some(attached) = all.get_mut(&ifindex) {
                attached.first = false;
            }
        }
        Ok(all)
    }

    /// Interfaces with the program of [`Datapath::attach_node`].
    pub fn attached_node(&self) -> Result<BTreeMap<u32, Attached>, AttachError> {
        self.attached_at(Hook::NODE)
    }

    fn attached_at(&self, hooks: &[Hook]) -> Result<BTreeMap<u32, Attached>, AttachError> {
        let (kind, found) = if self.is_tcx() {
            ("tcx", self.links.borrow_mut().attached(hooks, &self.programs)?)
        } else {
            ("clsact", clsact::attached(hooks, &self.programs)?)
        };
        Ok(found.into_iter().map(|(ifindex, first)| (ifindex, Attached { kind, first })).collect())
    }

    /// Packets and bytes of every reason and direction since the tables were made.
    pub fn counters(&self) -> Result<Vec<(Reason, Direction, Counter)>, TableError> {
        count::counters(&self.tables, self.cpus)
    }

    /// How full the tables are: those that plans write as of the last write, those of connections as of the last
    /// sweep.
    pub fn usage(&mut self) -> Result<Vec<Usage>, TableError> {
        let mut all = match &self.plan_usage {
            Some(usage) => usage.clone(),
            None => self.plan_usage.insert(count::plan_usage(&self.tables, &self.settings)?).clone(),
        };
        match &self.flow_usage {
            Some(usage) => all.extend_from_slice(usage),
            None => all
                .extend_from_slice(self.flow_usage.insert(count::flow_usage(&self.tables, &self.settings)?)),
        }
        Ok(all)
    }

    /// Hands over what the programs reported since the last call, some thousands at most; how many.
    pub fn events(&mut self, mut see: impl FnMut(&Event)) -> usize {
        let mut count = 0;
        while count < EVENTS_AT_ONCE
            && let Some(item) = self.tables.events.next()
        {
            if let Ok(event) = Event::read_from_bytes(&item) {
                see(&event);
            }
            count += 1;
        }
        count
    }

    /// Removes answered connections that have ended, and those of interfaces that are gone; how many. What pods have room for
    /// is written anew.
    pub fn sweep(&mut self) -> Result<u64, TableError> {
        let now = clock::now_tick();
        // Without the list connections go by age alone.
        let interfaces = Requests::open().and_then(|mut r| netlink::interfaces(&mut r)).ok();
        let t = &self.tables;
        let four = sweep::sweep(&t.flows4, "FLOWS4", interfaces.as_ref(), now)?;
        let six = sweep::sweep(&t.flows6, "FLOWS6", interfaces.as_ref(), now)?;
        let removed = four.removed + six.removed;
        let mut slots = BTreeMap::new();
        t.endpoints
            .for_each(|ifindex, slot| _ = slots.insert(*ifindex, *slot))
            .map_err(failed("read", "ENDPOINTS"))?;
        let (rows, endpoints) = (self.settings.flows, self.settings.capacities.endpoints);
        let shares = sweep::shares(&[four.held, six.held], &slots, rows, endpoints);
        t.shares.put_all(&shares).1.map_err(failed("write", "SHARES"))?;
        self.flow_usage = Some(count::flow_usage(t, &self.settings)?);
        Ok(removed)
    }

    /// Takes over the answered connections that nf_conntrack knows of the pods with these addresses, each with the
    /// index of its interface; how many. To be called before the flip that first enforces them: each is judged by
    /// policy when its next packet comes. What is there already stays, and after an error what was added stays, too.
    pub fn import(&self, pods: &BTreeMap<IpAddr, u32>) -> Result<usize, ImportError> {
        conntrack::import(&self.tables, pods, clock::now_tick())
    }

    /// Sends a frame, from its Ethernet header on, through the program of a direction; true when it passes. For
    /// tests: it counts, and makes connections, as a packet does.
    pub fn test_run(&self, direction: Direction, frame: &[u8], at: At) -> Result<bool, TestRunError> {
        test_run::test_run(&self.programs, Hook::of_pod(direction), frame, at).map(|ran| ran.passes)
    }

    /// The programs for another thread, which must be in the same network namespace. For tests.
    pub fn runner(&self) -> Result<Runner, OpenError> {
        programs::again(&self.pins).map(Runner)
    }

    /// As [`Datapath::test_run`], through the program of the node's other interfaces.
    pub fn test_run_node(&self, frame: &[u8], at: At) -> Result<bool, TestRunError> {
        test_run::test_run(&self.programs, Hook::FromNode, frame, at).map(|ran| ran.passes)
    }

    /// The mark that a frame leaves a pod with, when it passes.
    pub fn test_run_mark(&self, frame: &[u8], at: At) -> Result<Option<u32>, TestRunError> {
        let ran = test_run::test_run(&self.programs, Hook::FromPod, frame, at)?;
        Ok(ran.passes.then_some(ran.mark))
    }
}

/// Two links of every pod are held open, and a thousand descriptors is what a process may have unless it asks for
/// more.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Reads the row of settings, and writes it where it is not what it should be. Returns the secret.
fn settle(tables: &Tables, settings: &Settings) -> Result<[u64; 2], OpenError> {
    let found = tables.config.get(&0).map_err(failed("read", "CONFIG"))?.unwrap_or_default();
    let is_new = found.abi_version != ABI_VERSION || found.secret == [0; 2];
    let secret = if is_new { random().map_err(failed("make a secret for", "CONFIG"))? } else { found.secret };
    let flags = if settings.strict { CONFIG_STRICT } else { 0 };
    let wanted = Config { secret, flags, abi_version: ABI_VERSION, mark: settings.mark, pad: 0 };
    if wanted != found {
        tables.config.put(&0, &wanted).map_err(failed("write", "CONFIG"))?;
    }
    Ok(secret)
}

fn random() -> io::Result<[u64; 2]> {
    let mut secret = [0; 2];
    while secret == [0; 2] {
        // Sixteen bytes come whole or not at all.
        rustix::rand::getrandom(secret.as_mut_bytes(), rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(secret)
}
