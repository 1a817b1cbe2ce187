//! Row A3 of docs/robustness.md: chains of IPv6 extension headers, in any order.

use cellwall_abi::Reason;
use cellwall_policy::flow::Direction::{self, Ingress};
use cellwall_policy::flow::{Flow, Protocol};
use cellwall_testkit::objects::Rng;

use crate::headers::with_extensions;
use crate::world::{World, frame};

type Header = (u8, Vec<u8>);

/// A header of any kind that is walked, of any length; the last three are read as the others are and known to few.
fn header(rng: &mut Rng) -> Header {
    let kind = *rng.pick(&[0, 43, 60, 51, 44, 135, 139, 140]);
    let content = match kind {
        // Atomic: a fragment that is the whole.
        44 => vec![0; 8],
        // Fours, less two.
        51 => {
            let fours = rng.between(3, 40) / 2 * 2;
            [vec![0, u8::try_from(fours - 2).expect("small")], vec![0; fours * 4 - 2]].concat()
        }
        _ => {
            let eights = rng.between(1, 5);
            let mut content = vec![0; eights * 8];
            content[1] = u8::try_from(eights - 1).expect("small");
            if kind == 43 {
                content[2] = 2;
            }
            content
        }
    };
    (kind, content)
}

#[test]
fn chains_are_walked_to_their_end_or_dropped() {
    let [_, six] = World::both();
    let mut rng = Rng::new(3);
    for round in 0..20_000 {
        let direction = Direction::ALL[round % 2];
        let count = rng.between(0, 12);
        let chain = rng.many(count, header);
        let port = if direction == Ingress { 80 } else { 443 };
        let allowed = six.friend(direction, Protocol::TCP, port);
        let denied = six.friend(direction, Protocol::TCP, 22);
        let is_long = count > 8;
        let judged = |flow| {
            let reason = six.packet(&with_extensions(flow, &chain), direction).reason;
            six.memory.six.remove_all();
            reason
        };
        let kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(judged(&allowed), if is_long { Reason::Extension } else { Reason::Allowed }, "{kinds:?}");
        assert_eq!(
            judged(&denied),
            if is_long { Reason::Extension } else { Reason::DefaultDeny },
            "{kinds:?}"
        );
    }
}

#[test]
fn a_header_that_lies_about_its_length_hides_nothing() {
    let [_, mut six] = World::both();
    let mut rng = Rng::new(4);
    for round in 0..20_000 {
        let direction = Direction::ALL[round % 2];
        let denied = six.stranger(direction, Protocol::TCP, 22);
        let count = rng.between(1, 8);
        let mut chain = rng.many(count, header);
        let liar = rng.below(count);
        chain[liar].1[1] = u8::try_from(rng.below(256)).expect("a byte");
        let bytes = with_extensions(&denied, &chain);
        assert!(six.packet(&bytes, direction).reason.is_drop(), "{direction:?}: {chain:?}");
    }
    // A pod that may do everything gets and sends no packet whose end is not in it, and all others.
    six.allow_all();
    for direction in Direction::ALL {
        let flow = six.stranger(direction, Protocol::TCP, 22);
        let padding = |length| with_extensions(&flow, &[(60, vec![0, length, 0, 0, 0, 0, 0, 0])]);
        assert_eq!(six.packet(&padding(255), direction).reason, Reason::Truncated);
        assert_eq!(six.packet(&padding(0), direction).reason, Reason::Allowed);
        six.memory.six.remove_all();
    }
}

#[test]
fn what_goes_by_way_of_others_or_nowhere_is_dropped() {
    let [_, mut six] = World::both();
    six.allow_all();
    let none = (59, vec![0; 8]);
    let routing =
        |kind, left| (43, vec![0, 2, kind, left, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    for direction in Direction::ALL {
        let flow = six.friend(direction, Protocol::TCP, 80);
        for header in [routing(0, 0), routing(0, 1), routing(4, 1), routing(2, 1), none.clone()] {
            let reason = six.packet(&with_extensions(&flow, std::slice::from_ref(&header)), direction).reason;
            assert_eq!(reason, Reason::Extension, "{header:?}");
        }
        for header in [routing(2, 0), routing(4, 0)] {
            let reason = six.packet(&with_extensions(&flow, &[header]), direction).reason;
            assert_eq!(reason, Reason::Allowed, "it has arrived");
            six.memory.six.remove_all();
        }
    }
}

#[test]
fn a_payload_without_a_length_is_no_packet_unless_the_kernel_made_it() {
    let [_, mut six] = World::both();
    for isolated in [true, false] {
        for direction in Direction::ALL {
            let allowed = six.allowed(direction);
            let denied = Flow { port: 22, ..allowed };
            for (flow, reason) in [(allowed, Reason::Allowed), (denied, Reason::DefaultDeny)] {
                // Jumbo payload (RFC 2675): a hop-by-hop option, and no length in the header.
                let mut jumbo = with_extensions(&flow, &[(0, vec![0, 0, 0xc2, 4, 0, 1, 0, 0])]);
                jumbo[18..20].copy_from_slice(&[0, 0]);
                let expected = |reason| if isolated { reason } else { Reason::NotIsolated };
                assert_eq!(six.packet(&jumbo, direction).reason, expected(Reason::Malformed));
                let mut merged = frame(&jumbo, direction);
                merged.is_segmented = true;
                let reason_of_merged = six.judge(&merged, direction).reason;
                assert_eq!(reason_of_merged, expected(reason), "what the kernel puts together: {flow:?}");
            }
        }
        six.open_up();
        six.memory.forget();
    }
}
