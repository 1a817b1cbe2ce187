//! Fragments follow their first.

use cellwall_abi::{Family, Fragment, Reason, planted};

use crate::Verdict;
use crate::entry::Case;
use crate::parse::Parse;
use crate::policy::ask_some_port;
use crate::tables::{Packet, Tables};

/// Ticks that a first fragment is remembered: the kernel's own reassembly gives up after 30 s.
const FRAGMENT_TICKS: u32 = 28;

#[inline(always)]
fn key<F: Family, P, T>(case: &Case<'_, F, P, T>) -> F::FragmentKey {
    let Case { hook, headers, .. } = *case;
    let addresses = (headers.source, headers.destination);
    let key = F::fragment_key(hook.ifindex, hook.direction(), addresses, headers.id, headers.protocol);
    if hook.is_behind() && !planted("fragments-behind-follow-those-before") {
        F::fragment_behind(key)
    } else {
        key
    }
}

/// Remembers a first fragment that is allowed. One that is denied reaches nobody, and whoever sends it takes no room with
/// it; nor is what was allowed forgotten for it, since identifications come round.
#[inline(never)]
pub(crate) fn remember<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, verdict: Verdict) {
    if verdict.reason.is_drop() && !planted("denied-firsts-are-kept") {
        return;
    }
    let fragment = Fragment { revision: case.hook.live.0, rule: verdict.rule, seen: case.tables.now() };
    case.tables.insert_fragment(&key(case), &fragment, (case.slot, case.hook.direction()));
}

/// A later fragment: with its first where that was allowed, and else by protocol alone.
#[inline(never)]
pub(crate) fn later<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    if case.exempt().is_some() {
        return Verdict::new(Reason::FragmentFollows);
    }
    if let Some(first) = case.tables.fragment(&key(case)) {
        let is_fresh = case.tables.now().wrapping_sub(first.seen) <= FRAGMENT_TICKS;
        if is_fresh && first.revision >= case.record.since {
            return Verdict::by_rule(Reason::FragmentFollows, first.rule);
        }
    }
    let allowed = case.is_open() || ask_some_port(case) || planted("fragments-follow-nobody");
    Verdict::new(if allowed { Reason::FragmentFollows } else { Reason::FragmentDenied })
}
