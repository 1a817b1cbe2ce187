//! Fragments follow their first.

use cellwall_abi::{ACTION_ALLOW, ACTION_DENY, Family, Fragment, Reason, planted};

use crate::Verdict;
use crate::conn::is_older_than;
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

/// Remembers what the first fragment was told.
#[inline(never)]
pub(crate) fn remember<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>, verdict: Verdict) {
    let fragment = Fragment {
        revision: case.hook.live.0,
        rule: verdict.rule,
        seen: case.tables.now(),
        action: if verdict.reason.is_drop() { ACTION_DENY } else { ACTION_ALLOW },
        pad: [0; 7],
    };
    case.tables.insert_fragment(&key(case), &fragment, (case.slot, case.hook.direction()));
}

/// A later fragment: as its first was told, and by protocol alone when the first was not seen.
#[inline(never)]
pub(crate) fn later<F: Parse, P: Packet, T: Tables<F>>(case: &Case<'_, F, P, T>) -> Verdict {
    if case.exempt().is_some() {
        return Verdict::new(Reason::FragmentFollows);
    }
    if let Some(first) = case.tables.fragment(&key(case)) {
        let is_old = is_older_than(FRAGMENT_TICKS, first.seen, case.tables.now());
        if !is_old && first.revision >= case.record.since {
            let allowed = first.action == ACTION_ALLOW;
            let reason = if allowed { Reason::FragmentFollows } else { Reason::FragmentDenied };
            return Verdict::by_rule(reason, first.rule).forgotten(case.packet);
        }
    }
    let allowed = case.is_open() || ask_some_port(case) || planted("fragments-follow-nobody");
    Verdict::new(if allowed { Reason::FragmentFollows } else { Reason::FragmentDenied })
        .forgotten(case.packet)
}
