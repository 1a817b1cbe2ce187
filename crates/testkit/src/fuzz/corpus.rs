//! Frames that outlive a run: `in` or `out`, and the bytes, a line each.
//!
//! | file                | frames                                    | read                     | written                     |
//! |---------------------|-------------------------------------------|--------------------------|-----------------------------|
//! | `corpus/frames.txt` | one for every outcome, the shortest       | when this is built       | by `make fuzz`              |
//! | `corpus/found.txt`  | those that failed, as the usual place has them | by every run, first | by `make fuzz`, when one fails |
//! | `target/fuzz.txt`   | one for every state of the parser         | by `make fuzz`           | by `make fuzz`              |
//!
//! `make fuzz` is what sets `CELLWALL_KEEP=1`: other runs write nothing, and need no more than what they were built with, such
//! as those in virtual machines.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use cellwall_policy::flow::Direction;

use super::grammar::{Place, link_local};

/// A frame that is kept, and the hook it is for.
pub type Kept = (Direction, Vec<u8>);

/// A file has at most so many frames of so many bytes: all that a run is guided by.
const MOST: usize = 8192;
const LONGEST: usize = 2048;
/// A bug that is not mended yet fails on and on, always in much the same way.
const MOST_FOUND: usize = 256;

const FRAMES: &str = "corpus/frames.txt";
const KEPT: &str = include_str!("../../corpus/frames.txt");
const FOUND: &str = "corpus/found.txt";
const STATES: &str = "../../target/fuzz.txt";

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// True when this run keeps what it finds.
#[must_use]
pub fn keeps() -> bool {
    std::env::var("CELLWALL_KEEP").is_ok_and(|value| value == "1")
}

/// The frames that are kept in the tree, those that failed once before all others.
///
/// # Panics
/// When a line is something else.
#[must_use]
pub fn read_corpus() -> Vec<Kept> {
    [read_found(), lines(KEPT)].concat()
}

/// The frames that failed once.
///
/// # Panics
/// When a line is something else.
#[must_use]
pub fn read_found() -> Vec<Kept> {
    fs::read_to_string(path(FOUND)).map_or_else(|_| Vec::new(), |text| lines(&text))
}

/// One frame for every state of the parser that runs on this machine have reached; none where nothing is kept.
///
/// # Panics
/// When a line is something else.
#[must_use]
pub fn read_states() -> Vec<Kept> {
    let text = if keeps() { fs::read_to_string(path(STATES)).unwrap_or_default() } else { String::new() };
    lines(&text)
}

fn lines(text: &str) -> Vec<Kept> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (hook, hex) = line.split_once(' ').expect("a hook and bytes");
            let direction = if hook == "in" { Direction::Ingress } else { Direction::Egress };
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
            (direction, (0..hex.len()).step_by(2).map(byte).collect())
        })
        .collect()
}

fn line((direction, frame): &Kept) -> String {
    let mut line = if *direction == Direction::Ingress { "in ".to_owned() } else { "out ".to_owned() };
    for byte in frame {
        let _ = write!(line, "{byte:02x}");
    }
    line
}

/// Keeps one frame for every outcome in the tree, and one for every state outside it; nothing where nothing is kept.
///
/// # Panics
/// When a file cannot be written.
pub fn keep_reached<'a>(outcomes: impl Iterator<Item = &'a Kept>, states: impl Iterator<Item = &'a Kept>) {
    if !keeps() {
        return;
    }
    let text = |head: &str, frames: &mut dyn Iterator<Item = &'a Kept>| {
        let mut lines: Vec<String> =
            frames.filter(|(_, frame)| frame.len() <= LONGEST).take(MOST).map(line).collect();
        lines.sort();
        format!("{head}\n{}\n", lines.join("\n"))
    };
    let mut outcomes = outcomes;
    let mut states = states;
    let head = "# One frame for every outcome that `make fuzz` has reached, which writes it.";
    fs::write(path(FRAMES), text(head, &mut outcomes)).expect("the corpus");
    fs::write(path(STATES), text("# One frame for every state of the parser.", &mut states))
        .expect("the folder of what is built");
}

/// Keeps a frame that failed, found in a place, where every run reads it first. Says so.
///
/// # Panics
/// When the file cannot be written.
pub fn keep_found(direction: Direction, frame: &[u8], place: &Place, usual: &Place) {
    // Runs go on beside each other.
    static WRITING: Mutex<()> = Mutex::new(());
    if !keeps() || frame.len() > LONGEST {
        return;
    }
    let _writing = WRITING.lock().expect("no panic while it is held");
    let kept = (direction, moved(frame, place, usual));
    let mut found = read_found();
    if found.contains(&kept) || found.len() >= MOST_FOUND {
        return;
    }
    found.push(kept);
    let head = "# Frames that failed once. `make fuzz` adds to it; what is mended stays.";
    let lines: Vec<String> = found.iter().map(line).collect();
    fs::write(path(FOUND), format!("{head}\n{}\n", lines.join("\n"))).expect("the corpus");
    println!("kept in crates/testkit/{FOUND}: {}", lines[lines.len() - 1]);
}

/// The frame as it would be in another place: with its Ethernet addresses, and the addresses that are made of them.
#[must_use]
pub fn moved(frame: &[u8], from: &Place, to: &Place) -> Vec<u8> {
    let pairs = [(from.pod_mac, to.pod_mac), (from.other_mac, to.other_mac)];
    let local = |mac| match link_local(mac) {
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
        std::net::IpAddr::V4(_) => unreachable!("within a link of IPv6"),
    };
    let words: Vec<(Vec<u8>, Vec<u8>)> = pairs
        .iter()
        .flat_map(|(from, to)| [(from.to_vec(), to.to_vec()), (local(*from), local(*to))])
        .collect();
    let mut bytes = frame.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let word = words.iter().find(|(from, _)| bytes[at..].starts_with(from));
        at += word.map_or(1, |(from, to)| {
            bytes[at..at + from.len()].copy_from_slice(to);
            from.len()
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_moves_to_another_place_and_back() {
        let place = |pod_mac, other_mac| Place {
            pod: ["10.0.0.2", "fd00::2"].map(|text| text.parse().expect("an address")),
            remotes: [Vec::new(), Vec::new()],
            pod_mac,
            other_mac,
        };
        let (here, there) =
            (place([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]), place([2, 5, 5, 5, 5, 1], [2, 6, 6, 6, 6, 9]));
        let mut frame = [here.other_mac, here.pod_mac].concat();
        frame.extend([0x86, 0xdd, 1, 2, 3, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1]);
        let elsewhere = moved(&frame, &here, &there);
        assert!(elsewhere.starts_with(&[there.other_mac, there.pod_mac].concat()));
        assert!(elsewhere.ends_with(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 5, 5, 0xff, 0xfe, 5, 5, 1]));
        assert_eq!(moved(&elsewhere, &there, &here), frame);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let kept = vec![(Direction::Ingress, vec![0, 0xff, 7]), (Direction::Egress, vec![0x10; 20])];
        let text: Vec<String> = kept.iter().map(line).collect();
        assert_eq!(lines(&format!("# words\n{}\n", text.join("\n"))), kept);
    }
}
