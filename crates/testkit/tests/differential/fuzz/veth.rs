//! The same frames over a veth: to a packet socket behind it, which sees all that arrives, and to raw sockets of
//! every protocol, which see what the kernel makes of it, whatever its port. Needs root.

use std::collections::HashSet;
use std::thread;

use cellwall_policy::flow::Direction;
use cellwall_testkit::frame::packet;
use cellwall_testkit::fuzz::{
    Class, Judge, Place, Sentence, generate, keep_found, link_local, moved, mutate, read_found,
};
use cellwall_testkit::net::is_root;
use cellwall_testkit::objects::Rng;

use super::rig::Rig;
use super::scene::{hex, judge, usual_place, wrong};
use super::sockets::Delivered;
use crate::report::number;

const FRAMES: u64 = 2000;
/// Differences of one class and direction after which no more are looked for.
const ENOUGH: usize = 20;
/// Frames between two looks: fewer than a queue has room for.
const BATCH: usize = 250;

/// Takes off what the node's kernel takes off: a VLAN tag with id 0. A frame with another stays as it is.
fn untagged(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..16) {
        Some([0x81, 0x00, high, low] | [0x88, 0xa8, high, low])
            if u16::from_be_bytes([high << 4, *low]) == 0 =>
        {
            [&frame[..12], &frame[16..]].concat()
        }
        _ => frame.to_vec(),
    }
}

/// Puts the checksum of an IPv4 header right, as an attacker would: else its receiver throws it away unseen.
fn with_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let header = 4 * usize::from(frame.get(14).copied().unwrap_or_default() & 15);
    if frame.get(12..14) == Some(&[8, 0]) && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].copy_from_slice(&[0, 0]);
        let pairs = frame[14..14 + header].chunks(2);
        let sum: u32 = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice");
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    frame
}

fn frame(rng: &mut Rng, class: Class, place: &Place, direction: Direction) -> Vec<u8> {
    let frame = generate(rng, class, place, direction);
    if rng.percent(70) {
        return frame;
    }
    let other = generate(rng, class, place, direction);
    let spoilt = mutate(rng, &frame, &other);
    if rng.percent(80) { with_checksum(spoilt) } else { spoilt }
}

/// What became of the frames of one direction.
#[derive(Debug, Default)]
struct Outcome {
    sent: u64,
    arrived: u64,
    /// Frames that had to arrive, and did.
    due: u64,
    /// Packets that sockets got.
    delivered: u64,
    /// Those of ICMP among them.
    told: u64,
    wrong: Vec<Wrong>,
}

/// A frame, or a packet at a socket, of which the judge says something else.
#[derive(Clone, Debug)]
struct Wrong {
    direction: Direction,
    /// What is odd about the frames of its batch; `None`: they were kept.
    class: Option<Class>,
    at_socket: bool,
    what: String,
}

/// One direction, and its judge.
struct Run<'a> {
    rig: &'a mut Rig,
    judge: Judge,
    direction: Direction,
    /// That of the next batch.
    class: Option<Class>,
    outcome: Outcome,
}

impl Run<'_> {
    /// Notes what is wrong, and keeps the frame that it is about.
    fn wrong(&mut self, frame: Option<&[u8]>, at_socket: bool, what: String) {
        if let Some(frame) = frame {
            keep_found(self.direction, frame, &self.rig.place, &usual_place());
        }
        self.outcome.wrong.push(Wrong { direction: self.direction, class: self.class, at_socket, what });
    }

    /// How much is wrong with the frames of this class.
    fn wrong_of_class(&self) -> usize {
        self.outcome.wrong.iter().filter(|wrong| wrong.class == self.class).count()
    }

    fn batch(&mut self, frames: &[Vec<u8>]) {
        let arrived = self.rig.send(self.direction, frames);
        let sent: HashSet<Vec<u8>> = frames.iter().flat_map(|f| [f.clone(), untagged(f)]).collect();
        // Kernels say something of their own accord: who their neighbours are, and answers.
        let (ours, theirs): (Vec<_>, Vec<_>) = arrived.into_iter().partition(|frame| sent.contains(frame));
        for frame in theirs {
            if self.judge.sentence(&frame, self.direction) == Sentence::Never {
                self.wrong(Some(&frame), false, format!("{} of a kernel's own passes", hex(&frame)));
            }
        }
        let mut next = ours.iter().peekable();
        for frame in frames {
            // The tag of a frame that arrives is beside it.
            let passed = next.next_if(|bytes| **bytes == *frame || **bytes == untagged(frame)).is_some();
            let sentence = self.judge.sentence(&untagged(frame), self.direction);
            self.outcome.sent += 1;
            self.outcome.arrived += u64::from(passed);
            self.outcome.due += u64::from(sentence == Sentence::Must && passed);
            // The bridge itself keeps what is for bridges alone, and what comes from groups (IEEE 802.1D, 7.12.6).
            let by_bridge =
                frame[..5] == [1, 0x80, 0xc2, 0, 0] || frame[6] & 1 != 0 || frame[6..12] == [0; 6];
            // A kernel takes no tag off that is not followed by two bytes behind the EtherType (skb_vlan_untag).
            let by_kernel = frame.len() < 20 && untagged(frame) != *frame;
            if let Some(what) = wrong(sentence, passed).filter(|_| passed || !(by_bridge || by_kernel)) {
                self.wrong(Some(frame), false, format!("{} {what}", hex(frame)));
            }
        }
        if let Some(frame) = next.next() {
            self.wrong(Some(frame), false, format!("{} arrives out of order", hex(frame)));
        }
        self.sockets(frames);
    }

    /// What sockets got of a batch.
    fn sockets(&mut self, frames: &[Vec<u8>]) {
        let receiver = if self.direction == Direction::Ingress { &self.rig.pod } else { &self.rig.world };
        for delivered in receiver.sockets.delivered() {
            self.outcome.delivered += 1;
            self.outcome.told += u64::from(matches!(delivered.protocol, 1 | 58));
            if !self.may_be_delivered(&delivered) {
                // Of a datagram in fragments the beginning is in one of them.
                let head = &delivered.payload[..delivered.payload.len().min(16)];
                let frame =
                    frames.iter().find(|frame| frame.windows(head.len().max(1)).any(|part| part == head));
                self.wrong(frame.map(Vec::as_slice), true, format!("a socket gets {delivered:x?}"));
            }
        }
    }

    /// Whatever a socket gets is allowed as what the socket sees.
    fn may_be_delivered(&mut self, got: &Delivered) -> bool {
        let own = &self.rig.place.pod;
        let remote = if self.direction == Direction::Ingress { got.source } else { got.destination };
        let is_own = own.contains(&got.source) || got.source == link_local(self.rig.place.pod_mac);
        let has_ports = matches!(got.protocol, 6 | 17 | 132);
        let port = if has_ports {
            let Some(port) = got.payload.get(2..4) else { return false };
            u16::from_be_bytes([port[0], port[1]])
        } else {
            0
        };
        let is_placed = self.direction == Direction::Ingress || is_own;
        if matches!(got.protocol, 1 | 58) {
            return is_placed && self.may_be_told(got);
        }
        is_placed && self.judge.allows(self.direction, remote, got.protocol, port)
    }

    /// What is about a connection, or about neighbours, is not asked of policy: a message of ICMP is judged as the frame that
    /// brings it whole. Its hop limit, of which a socket knows nothing, was judged with the frame that came.
    fn may_be_told(&mut self, got: &Delivered) -> bool {
        let mut frame = packet(self.direction, (got.source, got.destination), got.protocol, &got.payload);
        let place = &self.rig.place;
        let (to, from) = match self.direction {
            Direction::Ingress => (place.pod_mac, place.other_mac),
            Direction::Egress => (place.other_mac, place.pod_mac),
        };
        frame[..12].copy_from_slice(&[to, from].concat());
        if got.protocol == 58 {
            frame[21] = if matches!(got.payload.first(), Some(133..=137)) { 255 } else { 1 };
        }
        self.judge.sentence(&frame, self.direction) != Sentence::Never
    }
}

/// Sends frames of every class in both directions, after those that failed once.
fn run(count: u64, with_policies: bool) -> Outcome {
    let mut total = Outcome::default();
    for direction in Direction::ALL {
        // A table of connections of its own: nothing in it was opened from the other side.
        let mut rig = Rig::new(with_policies);
        let place = rig.place.clone();
        let (judge, outcome) = (judge(&place), Outcome::default());
        let mut run = Run { judge, rig: &mut rig, direction, class: None, outcome };
        if with_policies {
            let found = read_found().into_iter().filter(|(of, frame)| *of == direction && frame.len() >= 14);
            let found: Vec<_> = found.map(|(_, frame)| moved(&frame, &usual_place(), &place)).collect();
            found.chunks(BATCH).for_each(|batch| run.batch(batch));
        }
        for (nth, class) in Class::ALL.into_iter().enumerate() {
            run.class = Some(class);
            let seed = 2000 + number("CELLWALL_SEED", 0) + nth as u64;
            let mut rng = Rng::new(seed);
            let mut left = count;
            while left > 0 && run.wrong_of_class() < ENOUGH {
                let size = left.min(BATCH as u64);
                left -= size;
                let mut frames: Vec<Vec<u8>> =
                    (0..size).map(|_| frame(&mut rng, class, &place, direction)).collect();
                frames.retain(|frame| frame.len() >= 14);
                run.batch(&frames);
            }
            if with_policies && run.wrong_of_class() > 0 {
                println!("{class:?}, {direction:?}: differences of seed {seed}");
            }
        }
        total.sent += run.outcome.sent;
        total.arrived += run.outcome.arrived;
        total.due += run.outcome.due;
        total.delivered += run.outcome.delivered;
        total.told += run.outcome.told;
        total.wrong.extend(run.outcome.wrong);
    }
    total
}

/// On a thread of its own, which it moves into namespaces.
pub(super) fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> Option<T> {
    if !is_root() {
        println!("skipped: needs root");
        return None;
    }
    Some(thread::scope(|scope| {
        scope.spawn(body).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }))
}

#[test]
fn no_socket_gets_what_the_judge_denies() {
    let count = number("CELLWALL_FRAMES", FRAMES);
    let Some(outcome) = on_thread(|| run(count, true)) else { return };
    println!(
        "over a veth: {} frames, {} arrived, {} of them due, {} packets at sockets ({} of ICMP), {} differences",
        outcome.sent,
        outcome.arrived,
        outcome.due,
        outcome.delivered,
        outcome.told,
        outcome.wrong.len()
    );
    let wrong: Vec<&String> = outcome.wrong.iter().map(|wrong| &wrong.what).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(outcome.due * 50 > outcome.sent && outcome.delivered * 100 > outcome.sent, "{outcome:?}");
    assert!(outcome.told * 500 > outcome.sent, "{outcome:?}");
}

/// The same frames at a pod without policies: of every class, in both directions, what would be a leak arrives, or the test
/// above shows nothing about it.
#[test]
fn without_policies_the_leaks_are_seen() {
    let Some(outcome) = on_thread(|| run(250, false)) else { return };
    let mut blind = Vec::new();
    for class in Class::ALL {
        for direction in Direction::ALL {
            let of_class =
                outcome.wrong.iter().filter(|w| w.class == Some(class) && w.direction == direction);
            let (sockets, frames): (Vec<_>, Vec<_>) = of_class.partition(|wrong| wrong.at_socket);
            println!(
                "without policies: {class:?}, {direction:?}: {} frames and {} packets at sockets that policies would deny",
                frames.len(),
                sockets.len()
            );
            if frames.len() <= 5 || sockets.len() <= 5 {
                blind.push((class, direction, frames.len(), sockets.len()));
            }
        }
    }
    assert!(blind.is_empty(), "{blind:?}");
}
