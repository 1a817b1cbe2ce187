//! Frames spoilt byte by byte.

use crate::objects::Rng;

/// Longer frames are cut: an attacker's frame fits into an MTU.
const LONGEST: usize = 400;

/// A frame with some bytes changed; `other` gives a tail, now and then.
#[must_use]
pub fn mutate(rng: &mut Rng, frame: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    for _ in 0..rng.between(1, 4) {
        let length = bytes.len();
        if length < 15 {
            break;
        }
        // Most is decided in the headers.
        let end = if rng.percent(80) { length.min(90) } else { length };
        let at = rng.below(end);
        match rng.below(12) {
            0..4 => bytes[at] ^= 1 << rng.below(8),
            4 => bytes[at] = u8::try_from(rng.below(256)).expect("a byte"),
            5 => bytes[at] = *rng.pick(&[0, 1, 4, 6, 17, 43, 44, 50, 51, 58, 59, 60, 127, 128, 132, 255]),
            6 => bytes[at] = bytes[at].wrapping_add(1),
            7 => bytes[at] = bytes[at].wrapping_sub(1),
            8 => bytes.truncate(at.max(14)),
            9 => {
                let extra = bytes[at..(at + rng.between(1, 16)).min(length)].to_vec();
                bytes.splice(at..at, extra);
            }
            10 => drop(bytes.drain(at..(at + rng.between(1, 8)).min(length))),
            _ => {
                bytes.truncate(at.max(14));
                bytes.extend(other.get(at..).unwrap_or(&[]));
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
