//! Programs as filters of the clsact qdisc, for kernels without tcx. A filter is replaced in place, and stays when
//! the agent ends. Ours is known by the id of its program, never by a name that others may use, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::error::AttachError;
use crate::netlink::{self, Attributes, Body, CREATE, EXCL, REPLACE, Requests, TrafficHead};
use crate::programs::{self, Hook, Programs};

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const NEW_FILTER: u16 = 44;
const DELETE_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;

/// `TC_H_CLSACT`.
const CLSACT: u32 = 0xffff_fff1;
/// `TC_H_MAJ(TC_H_CLSACT)`.
const CLSACT_HANDLE: u32 = 0xffff_0000;
const HOOK_INGRESS: u32 = 0xffff_fff2;
const HOOK_EGRESS: u32 = 0xffff_fff3;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_FD: u16 = 6;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
/// `TCA_BPF_FLAG_ACT_DIRECT`: what the program returns is the verdict.
const DIRECT: u32 = 1;

/// Before all others. Filters of one priority run newest first.
const PRIORITY: u32 = 1;
/// A handle that nobody gives by counting from one; with the number of the hook, of which two share a side.
const HANDLE: u32 = 0xce11;
const ETH_P_ALL: u16 = 3;

const fn side(hook: Hook) -> u32 {
    if hook.is_at_egress() { HOOK_EGRESS } else { HOOK_INGRESS }
}

const fn handle(hook: Hook) -> u32 {
    match hook {
        Hook::ToPod | Hook::FromPod => HANDLE,
        Hook::FromNode => HANDLE + 1,
    }
}

fn head(ifindex: u32, parent: u32) -> TrafficHead {
    TrafficHead { index: ifindex.cast_signed(), parent, ..TrafficHead::default() }
}

fn filter_head(ifindex: u32, hook: Hook) -> TrafficHead {
    let info = PRIORITY << 16 | u32::from(ETH_P_ALL.to_be());
    TrafficHead { handle: handle(hook), info, ..head(ifindex, side(hook)) }
}

fn failed(step: &'static str, ifindex: u32) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError { step, ifindex, source }
}

/// A filter of the kind bpf: its handle with its priority, and the id of its program. `None` for other kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filter {
    is_at_our_place: bool,
    program: Option<u32>,
}

/// Filters on the side of a hook, in the order in which they run.
fn filters(requests: &mut Requests, ifindex: u32, hook: Hook) -> io::Result<Vec<Filter>> {
    let answers = match requests.list(GET_FILTER, &Body::new(&head(ifindex, side(hook)))) {
        // No clsact there, or no such interface any more.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ENODEV)) => {
            return Ok(Vec::new());
        }
        answers => answers?,
    };
    let filter = |message: &netlink::Message| {
        let head: TrafficHead = message.head()?;
        // A chain of filters announces itself with handle 0.
        (head.handle != 0).then(|| Filter {
            is_at_our_place: head.handle == handle(hook) && head.info >> 16 == PRIORITY,
            program: program(message),
        })
    };
    Ok(answers.iter().filter_map(filter).collect())
}

fn program(message: &netlink::Message) -> Option<u32> {
    let options = message.attributes::<TrafficHead>().find(|(kind, _)| *kind == OPTIONS)?.1;
    let id = Attributes(options).find(|(kind, _)| *kind == BPF_ID)?.1;
    Some(u32::from_ne_bytes(id.try_into().ok()?))
}

/// Puts our programs in the place of `heirs`, on every interface.
pub(crate) fn adopt(heirs: &BTreeSet<u32>, programs: &Programs) -> Result<(), AttachError> {
    let mut requests = open()?;
    for ifindex in netlink::interfaces(&mut requests).map_err(failed("list", 0))? {
        for hook in Hook::ALL {
            let found =
                filters(&mut requests, ifindex, hook).map_err(failed("list the filters of", ifindex))?;
            let ours = programs::of(programs, hook).id;
            if found
                .iter()
                .any(|f| f.is_at_our_place && f.program.is_some_and(|id| id != ours && heirs.contains(&id)))
            {
                put(&mut requests, ifindex, hook, programs)?;
            }
        }
    }
    Ok(())
}

fn open() -> Result<Requests, AttachError> {
    Requests::open().map_err(failed("open a netlink socket for", 0))
}

/// Inserts or replaces our filter: every packet sees the old program or the new one.
fn put(requests: &mut Requests, ifindex: u32, hook: Hook, programs: &Programs) -> Result<(), AttachError> {
    let fd = programs::of(programs, hook).fd().as_fd().as_raw_fd();
    let options = Body::new(&())
        .with(BPF_FD, &fd.to_ne_bytes())
        .with(BPF_NAME, b"cellwall\0")
        .with(BPF_FLAGS, &DIRECT.to_ne_bytes());
    let body = Body::new(&filter_head(ifindex, hook)).with(KIND, b"bpf\0").with(OPTIONS, options.bytes());
    requests.change(NEW_FILTER, CREATE | REPLACE, &body).map_err(failed("put a filter on", ifindex))
}

/// Puts the programs of `hooks` on an interface, or takes over those that are there.
pub(crate) fn attach(
    ifindex: u32,
    hooks: &[Hook],
    own: &BTreeSet<u32>,
    programs: &Programs,
) -> Result<(), AttachError> {
    let mut requests = open()?;
    let qdisc = TrafficHead { handle: CLSACT_HANDLE, ..head(ifindex, CLSACT) };
    match requests.change(NEW_QDISC, CREATE | EXCL, &Body::new(&qdisc).with(KIND, b"clsact\0")) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
            return Err(failed("add clsact to", ifindex)(error));
        }
        _ => {}
    }
    for &hook in hooks {
        let found = filters(&mut requests, ifindex, hook).map_err(failed("list the filters of", ifindex))?;
        let there = found.iter().find(|f| f.is_at_our_place).map(|f| f.program);
        match there {
            Some(Some(id)) if id == programs::of(programs, hook).id => {}
            Some(id) if id.is_none_or(|id| !own.contains(&id)) => {
                let taken = io::Error::from_raw_os_error(libc::EBUSY);
                return Err(failed("put a filter in the place of another's on", ifindex)(taken));
            }
            _ => put(&mut requests, ifindex, hook, programs)?,
        }
    }
    Ok(())
}

/// Takes the programs of `hooks` off, and the qdisc when nobody else uses it; true when there were any.
pub(crate) fn detach(ifindex: u32, hooks: &[Hook], own: &BTreeSet<u32>) -> Result<bool, AttachError> {
    let mut requests = open()?;
    let mut deleted = false;
    for &hook in hooks {
        let found = filters(&mut requests, ifindex, hook).map_err(failed("list the filters of", ifindex))?;
        if found.iter().any(|f| f.is_at_our_place && f.program.is_some_and(|id| own.contains(&id))) {
            let body = Body::new(&filter_head(ifindex, hook)).with(KIND, b"bpf\0");
            gone_is_fine(requests.change(DELETE_FILTER, 0, &body)).map_err(failed("detach from", ifindex))?;
            deleted = true;
        }
    }
    let mut unused = deleted;
    // Both sides.
    for &hook in Hook::POD {
        let left = filters(&mut requests, ifindex, hook).map_err(failed("list the filters of", ifindex))?;
        unused &= left.is_empty();
    }
    if unused {
        let qdisc = TrafficHead { handle: CLSACT_HANDLE, ..head(ifindex, CLSACT) };
        let body = Body::new(&qdisc).with(KIND, b"clsact\0");
        gone_is_fine(requests.change(DELETE_QDISC, 0, &body))
            .map_err(failed("remove clsact from", ifindex))?;
    }
    Ok(deleted)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(()),
        result => result,
    }
}

/// Interfaces with our programs at all of `hooks`, and whether they are first at each.
pub(crate) fn attached(hooks: &[Hook], programs: &Programs) -> Result<BTreeMap<u32, bool>, AttachError> {
    let mut requests = open()?;
    let mut attached = BTreeMap::new();
    for ifindex in netlink::interfaces(&mut requests).map_err(failed("list", 0))? {
        let (mut all, mut first) = (true, true);
        for &hook in hooks {
            let ours = Some(programs::of(programs, hook).id);
            let found =
                filters(&mut requests, ifindex, hook).map_err(failed("list the filters of", ifindex))?;
            all &= found.iter().any(|f| f.program == ours);
            first &= found.first().is_some_and(|f| f.program == ours);
        }
        if all {
            attached.insert(ifindex, first);
        }
    }
    Ok(attached)
}
